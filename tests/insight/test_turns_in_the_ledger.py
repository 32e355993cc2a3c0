"""The same rules on rows: what a bill warns of, and what reports read back."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest_asyncio

from tallystick.contracts import Bill
from tallystick.insight import compare, follow, history_of
from tallystick.ledger import turns
from tallystick.ledger.database import Ledger
from tallystick.rerating import rerate
from tests.insight.turns import usage
from tests.rerate.stand import (
    DAY,
    NOON,
    UNKNOWN,
    add_customer,
    another_book,
    dearer_sonnet,
    reply,
    serve,
)


@pytest_asyncio.fixture
async def books(ledger: Ledger) -> Ledger:
    await add_customer(ledger, "acme")
    return ledger


async def say(
    ledger: Ledger,
    prompt: int,
    answer: int = 100,
    *,
    minutes: float = 0,
    conversation: str | None = "chat",
    model: dict[str, Any] | None = None,
    **cached: int,
) -> Bill:
    message = reply(**{"usage": usage(prompt, answer, **cached), **(model or {})})
    at = NOON + timedelta(minutes=minutes)
    _, recorded = await serve(ledger, message, conversation=conversation, at=at)
    return recorded.bill


async def test_a_bill_warns_once_history_outweighs_what_is_new(books: Ledger) -> None:
    bills = [await say(books, 2_000 * turn, minutes=turn) for turn in range(1, 6)]
    told = [[said for said in bill.warnings if "sent again" in said] for bill in bills]
    assert [len(each) for each in told] == [0, 0, 0, 0, 1]
    # 8,100 of 10,000; five turns of 0.004 i + 0.001; as many again by the same straight line.
    assert "81 % of the prompt" in told[4][0]
    assert "its 5 turns came to $0.065" in told[4][0]
    assert "about $0.23" in told[4][0]


async def test_the_bill_says_that_the_cache_was_lost_and_what_that_cost(books: Ledger) -> None:
    assert (await say(books, 100, write=10_000)).warnings == ()
    (warning,) = (await say(books, 300, write=10_000, minutes=7)).warnings
    assert warning.startswith("cache expired or invalidated")
    assert "$0.024 extra" in warning


async def test_a_refusal_does_not_hide_the_turn_before_it(books: Ledger) -> None:
    await say(books, 100, write=10_000)
    refused = {"stop_reason": "refusal", "content": []}
    await say(books, 200, minutes=1, model=refused)
    (warning,) = (await say(books, 300, write=10_000, minutes=9)).warnings
    assert warning.startswith("cache expired or invalidated")
    async with books.begin() as tx:
        before = await turns.last_before(tx, "acme", {"chat"}, NOON + timedelta(minutes=5))
    assert before["chat"].tokens.prompt == 10_100


async def test_other_conversations_and_single_requests_are_not_warned_of(books: Ledger) -> None:
    await say(books, 100, write=10_000)
    assert (await say(books, 300, write=10_000, minutes=7, conversation="other")).warnings == ()
    assert (await say(books, 300, write=10_000, minutes=8, conversation=None)).warnings == ()


async def test_a_conversation_is_read_back_with_its_history(books: Ledger) -> None:
    for turn in range(1, 4):
        await say(books, 1_000 * turn, minutes=turn)
    await say(books, 9_000, minutes=9, conversation="other")
    async with books.begin() as tx:
        read = await turns.conversation(tx, "acme", "chat")
    summary = history_of(follow(read))
    # 1,100 and 2,100 re-sent of 6,000, at $2 a million; three answers of $0.001 beside it.
    assert (summary.turns, summary.prompt_tokens, summary.resent_tokens) == (3, 6_000, 3_200)
    assert summary.resent_usd == Decimal("0.0064")
    assert summary.charge_usd == Decimal("0.015")
    assert "53 % of the prompts (about 13 pages of text) was history sent again" in (
        summary.in_words()
    )


async def test_a_period_begins_with_the_conversations_that_were_under_way(books: Ledger) -> None:
    await say(books, 1_000, minutes=0)
    await say(books, 1_500, minutes=1)
    await say(books, 2_500, minutes=10)
    middle = NOON + timedelta(minutes=5)
    async with books.begin() as tx:
        later = await turns.served(tx, "acme", middle, DAY[1])
        before = await turns.last_before(tx, "acme", {"chat", "none"}, middle)
    assert [each.resent_tokens for each in follow(later, before)] == [1_600]


async def test_corrections_count_in_what_is_explained(books: Ledger) -> None:
    await say(books, 1_000)
    await say(books, 1_000, minutes=1, conversation=None, model={"model": UNKNOWN})
    async with books.begin() as tx:
        await rerate(tx, *DAY, book=another_book(dearer_sonnet), booking=True)
        read = await turns.served(tx, "acme", *DAY)
    assert [each.charge_usd for each in read] == [Decimal("0.0032"), None]
    assert [str(line.unit_usd) for line in read[0].lines] == ["0.000002", "0.000012"]
    compared = compare([], follow(read))
    assert (compared.after_usd, compared.unpriced) == (Decimal("0.0032"), 1)


async def test_a_bill_tells_what_a_page_costs_on_the_customers_own_plan(books: Ledger) -> None:
    # Sonnet 5.5, 250 tokens a page: 0.05 cents in, 0.25 cents out; 20 % more on pass-through.
    at_cost = await say(books, 1_000)
    assert at_cost.explanation.endswith(
        "On your plan an ordinary page costs about 0.05 cents in a prompt and about 0.25 cents in "
        "an answer with claude-sonnet-5-5."
    )
    await add_customer(books, "marked-up", "pass-through")
    _, dearer = await serve(books, reply(), customer="marked-up")
    assert "about 0.06 cents in a prompt and about 0.3 cents in an answer" in (
        dearer.bill.explanation
    )


async def test_what_is_not_priced_tells_no_typical_costs(books: Ledger) -> None:
    unpriced = await say(books, 1_000, model={"model": UNKNOWN})
    assert "ordinary page" not in unpriced.explanation


async def test_a_reply_of_an_unknown_shape_is_recorded_without_a_price(books: Ledger) -> None:
    _, recorded = await serve(books, reply(content="not a list"))
    assert recorded.bill.status == "unpriced"
