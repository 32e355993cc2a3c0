"""Quotes in the customer's money: by hand, against the bills that follow, and as commands."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st
from temporalio.client import Client as TemporalClient
from typer.testing import CliRunner

from tallystick import Client
from tallystick.cli.app import app
from tallystick.errors import InvalidRequestError, UnavailableError, UnknownCustomerError
from tallystick.ledger.database import Ledger
from tallystick.plans import PlanTerms, charge, quote_request
from tallystick.pricing import TokenKind, rate
from tests.rerate.stand import add_customer
from tests.support.house import House, open_house

NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)
SONNET = "claude-sonnet-5-5"  # $2 in, $10 out, $2.50 written, $0.10 read, a million


def body(text: str = "What is a tally stick?", **changes: Any) -> dict[str, Any]:
    return {
        "model": SONNET,
        "max_tokens": 1_000,
        "messages": [{"role": "user", "content": text}],
        **changes,
    }


def test_a_counted_prompt_is_quoted_to_the_last_digit() -> None:
    made = quote_request(body(), NOON, counted=100_000)
    assert (made.input_tokens_low, made.input_tokens_high, made.counted) == (100_000, 100_000, True)
    assert made.charge_low_usd == made.cost_low_usd == Decimal("0.2")
    assert made.charge_high_usd == made.cost_high_usd == Decimal("0.21")
    assert made.cache_saves_usd == Decimal("0.19")  # 100,000 x (2.00 - 0.10) / 1,000,000
    assert made.cache_costs_usd == Decimal("0.05")  # 100,000 x (2.50 - 2.00) / 1,000,000
    assert made.batch_saves_usd == Decimal("0.105")
    assert made.plan is None


def test_a_plan_is_put_over_all_of_it() -> None:
    terms = PlanTerms(model="pass-through", markup=Decimal("0.2"), discount=Decimal("0.5"))
    made = quote_request(body(), NOON, terms, plan="friends", counted=100_000)
    # 20 % on top, half of it let off: 0.6 of the cost.
    assert (made.cost_high_usd, made.charge_high_usd) == (Decimal("0.21"), Decimal("0.126"))
    assert made.charge_low_usd == Decimal("0.12")
    assert made.cache_saves_usd == Decimal("0.114")
    assert made.batch_saves_usd == Decimal("0.063")
    assert made.plan == "friends"


def test_savings_follow_the_markup_of_each_kind() -> None:
    terms = PlanTerms(model="pass-through", markup_by_kind={TokenKind.CACHE_READ: Decimal(4)})
    made = quote_request(body(), NOON, terms, counted=100_000)
    assert made.cache_saves_usd == Decimal("0.15")  # reads are charged at $0.50 a million
    assert made.cache_costs_usd == Decimal("0.05")


def test_it_is_said_in_pages_and_dollars() -> None:
    said = quote_request(body(), NOON, counted=100_000).explanation
    assert "by Claude's own count, is about 400 pages of text" in said
    assert "between $0.20 and $0.21" in said
    assert "would save about $0.19; keeping it there costs $0.05 extra" in said
    assert "In a batch it would cost up to $0.10 less" in said


def test_short_prompts_and_fast_ones_are_not_promised_what_they_cannot_have() -> None:
    said = quote_request(body(model="claude-opus-5-5", speed="fast"), NOON).explanation
    assert "cache" not in said
    assert "batch" not in said


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 200_000),
    st.integers(0, 1_000),
    st.sampled_from(["0", "0.2", "-0.3"]),
    st.sampled_from(["0", "1.5", "-0.9"]),
    st.sampled_from(["input", "cache_write", "cache_read"]),
)
def test_the_bill_that_follows_is_within_the_quote(
    prompt: int, answer: int, markup: str, on_reads: str, how: str
) -> None:
    terms = PlanTerms(
        model="pass-through",
        markup=Decimal(markup),
        markup_by_kind={TokenKind.CACHE_READ: Decimal(on_reads)},
    )
    cached = body(cache_control={"type": "ephemeral"}) if how != "input" else body()
    made = quote_request(cached, NOON, terms, counted=prompt)
    counts = {"input_tokens": 0, "output_tokens": answer}
    if how == "input":
        counts["input_tokens"] = prompt
    elif how == "cache_read":
        counts["cache_read_input_tokens"] = prompt
    else:
        counts |= {
            "cache_creation_input_tokens": prompt,
            "cache_creation": {"ephemeral_5m_input_tokens": prompt},
        }
    reply = {"model": SONNET, "stop_reason": "end_turn", "content": [], "usage": counts}
    rating = rate(reply, at=NOON)
    assert rating.cost_usd is not None
    assert made.cost_low_usd <= rating.cost_usd <= made.cost_high_usd
    assert made.charge_low_usd <= charge(rating.lines, terms).usd <= made.charge_high_usd


@pytest_asyncio.fixture
async def house(temporal: TemporalClient, database_url: str) -> AsyncIterator[House]:
    async with open_house(temporal, database_url, "quoted") as opened:
        yield opened


async def test_an_application_is_quoted_by_its_customers_plan_and_billed_within_it(
    house: House,
) -> None:
    asked = body("Tell me of tally sticks. " * 40)
    quoted = await house.client.quote(customer_id="quoted", conversation_id="c", **asked)
    counted = await house.client.quote(customer_id="quoted", count=True, **asked)
    at_cost = await house.client.quote(**asked)
    assert (quoted.plan, at_cost.plan) == ("pass-through", None)
    assert quoted.charge_high_usd == at_cost.cost_high_usd * Decimal("1.2")
    assert counted.input_tokens_low == counted.input_tokens_high
    assert await house.claude.journal() == []  # nothing was sent

    answer = await house.ask("r-1", **asked)
    assert counted.input_tokens_likely == answer.usage.input_tokens
    assert answer.bill.charge_usd is not None
    assert counted.charge_low_usd <= answer.bill.charge_usd <= counted.charge_high_usd
    assert quoted.charge_low_usd <= answer.bill.charge_usd <= quoted.charge_high_usd


async def test_what_cannot_be_quoted_is_refused_as_the_request_would_be(house: House) -> None:
    with pytest.raises(UnknownCustomerError, match="nobody"):
        await house.client.quote(customer_id="nobody", **body())
    for customer in ({}, {"customer_id": "quoted"}):
        with pytest.raises(InvalidRequestError, match=r"params\.model"):
            await house.client.quote(**customer, **body(model="claude-nobody-knows"))
        with pytest.raises(InvalidRequestError, match=r"params\.max_tokens"):
            await house.client.quote(**customer, **body(max_tokens="many"))


async def test_without_a_worker_it_is_said_what_is_missing(temporal: TemporalClient) -> None:
    with pytest.raises(UnavailableError, match="no worker answered"):
        await Client(temporal).quote(customer_id="quoted", timeout=0.5, **body())


async def run(*command: str, stdin: str | None = None) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, ["quote", *command], input=stdin)


async def test_the_command_takes_a_prompt_a_file_or_a_body(tmp_path: Path) -> None:
    text = "What is a tally stick?"
    (tmp_path / "prompt.txt").write_text(text)
    (tmp_path / "body.json").write_text(json.dumps(body(text)))
    ways = [
        (text, "--max-tokens", "1000"),
        ("--file", str(tmp_path / "prompt.txt"), "--max-tokens", "1000"),
        ("--body", str(tmp_path / "body.json")),
    ]
    told = [json.loads((await run(*way, "--json")).stdout) for way in ways]
    told.append(json.loads((await run("--body", "-", "--json", stdin=json.dumps(body()))).stdout))
    assert told == [told[0]] * 4
    assert told[0]["max_tokens"] == 1_000
    words = (await run(text, "--model", "claude-opus-5-5")).output
    assert words.startswith("The prompt, judged by its size, is less than a page of text")


async def test_the_command_charges_by_a_customers_plan(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    await add_customer(ledger, "acme", "pass-through")
    told = json.loads((await run("Hello", "--customer", "acme", "--json")).stdout)
    assert told["plan"] == "pass-through"
    assert Decimal(told["charge_high_usd"]) == Decimal(told["cost_high_usd"]) * Decimal("1.2")
    nobody = await run("Hello", "--customer", "nobody")
    assert (nobody.exit_code, "no customer 'nobody'" in nobody.output) == (1, True)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ((), "only one of them"),
        (("Hello", "--file", "x"), "only one of them"),
        (("--file", "/no/such/file"), "--file: '/no/such/file' cannot be read"),
        (("Hello", "--model", "nope"), "the price book does not know the model 'nope'"),
    ],
)
async def test_the_command_says_what_is_wrong_in_one_line(
    command: tuple[str, ...], said: str
) -> None:
    result = await run(*command)
    assert result.exit_code == 1
    assert said in result.output
