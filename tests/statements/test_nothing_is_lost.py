"""Whatever happens to an account, its statements together are its ledger, to the nano-USD."""

import asyncio
import itertools
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from tallystick.contracts import RecordOrder
from tallystick.ledger import accounts, statements
from tallystick.ledger.database import Ledger
from tallystick.ledger.effective import effective
from tallystick.plans.periods import Period
from tallystick.plans.statement import Statement
from tallystick.pricing import TOKEN_KINDS
from tests.rerate.stand import UNKNOWN, another_book, knows_the_unknown, price_answers
from tests.statements.reading import reads_right
from tests.statements.stand import ANCHOR, Account, add_plans

PERIODS = (1, 2, 3)
LAST = 4
"""Closed at the end, so that all that was late is on a statement."""
PLANS: dict[str, dict[str, Any]] = {
    "metered": {"model": "pass-through", "markup": "0.123457"},
    "tiered": {
        "model": "pass-through",
        "discount": "0.033333",
        "tiers": {
            "mode": "volume",
            "brackets": [{"up_to_usd": "2", "factor": "1"}, {"factor": "0.7"}],
        },
        "commitment_usd": "3",
    },
    "monthly": {
        "model": "hybrid",
        "base_fee_usd": "9.99",
        "markup": "0.333333",
        "allowance": {"tokens": {"input": 400_000, "output": 30_000}},
    },
    "yearly": {"model": "hybrid", "base_fee_usd": "19", "allowance": {"usd": "1.5"}},
    "credit": {"model": "prepaid", "markup": "0.777777"},
}
BOOKS = [another_book(knows_the_unknown, "knows")] + [
    another_book(
        lambda data, price=price: (knows_the_unknown(data), price_answers(data, price)), price
    )
    for price in ("11.1", "7.3")
]
"""Three books, each of which prices answers in its own way; only the first is without a change."""
_names = (f"customer-{number}" for number in itertools.count(1))


@dataclass
class Story:
    """What happens in one period, at shares of it; and the books that adjust usage in it."""

    used: list[tuple[float, int, int, str]] = field(default_factory=list)
    moves: list[tuple[float, str]] = field(default_factory=list)
    books: set[int] = field(default_factory=set)


shares = st.floats(0, 0.999)
stories = st.builds(
    Story,
    st.lists(
        st.tuples(
            shares,
            st.integers(0, 999_999),
            st.integers(1, 99_999),
            st.sampled_from(["at once", "at once", "while closing", "later", "unpriced"]),
        ),
        max_size=5,
    ),
    st.lists(st.tuples(shares, st.sampled_from(list(PLANS))), max_size=2),
    st.sets(st.integers(0, 2), max_size=1),
)


@settings(
    max_examples=10,
    phases=[Phase.generate],  # an example takes a second; making it smaller would take minutes
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.sampled_from(list(PLANS)), st.lists(stories, min_size=3, max_size=3))
async def test_the_sum_of_statements_is_the_sum_of_the_ledger(
    ledger: Ledger, plan: str, told: list[Story]
) -> None:
    await add_plans(ledger, **PLANS)
    account = await Account(ledger, next(_names)).open(plan)
    opening = await account.settle(0)
    written = [opening] if opening else []
    late: list[RecordOrder] = []
    for ordinal, story in zip(PERIODS, told, strict=True):
        now, late = late, []
        await asyncio.gather(*map(account.record, now))
        closing = await _live_through(account, ordinal, story, late)
        await asyncio.gather(account.close_books(ordinal), *map(account.record, closing))
        written.append(await _settled(account, ordinal))
    await asyncio.gather(*map(account.record, late))
    await account.close_books(LAST)
    written.append(await _settled(account, LAST))
    await _adds_up(account, written)


async def _live_through(
    account: Account, ordinal: int, story: Story, late: list[RecordOrder]
) -> list[RecordOrder]:
    """Let a period pass; returns what is to be recorded while it is closed."""
    period = accounts.period_of(await account.account(), ordinal)
    closing: list[RecordOrder] = []
    events = [
        *((at, None, use) for at, *use in story.used),
        *((*move, None) for move in story.moves),
    ]
    for share, plan, use in sorted(events, key=lambda event: event[0]):
        at = _instant(period, share)
        if use is None:
            await account.move(at, plan)
            continue
        prompt, answer, how = use
        model = UNKNOWN if how == "unpriced" else None
        order = await account.answered(at, prompt, answer, model=model)
        if how == "while closing":
            closing.append(order)
        elif how == "later":
            late.append(order)
        else:
            await account.record(order)
    for book in story.books:
        await account.reprice(BOOKS[book])
    return closing


def _instant(period: Period, share: float) -> datetime:
    return period.start + share * (period.end - period.start)


async def _settled(account: Account, ordinal: int) -> Statement:
    """Settle a period twice at once, as a worker does that was given up for dead and was not."""
    first, second = await asyncio.gather(account.settle(ordinal), account.settle(ordinal))
    assert first is not None
    assert first == second
    await account.finish(ordinal)
    return first


async def _adds_up(account: Account, written: list[Statement]) -> None:
    async with account.ledger.begin() as tx:
        stored = await statements.list_all(tx, account.customer)
        assert [each.statement for each in stored] == written
    # To the nano-USD, and to the token.
    assert sum(each.usage_usd for each in written) == Decimal(await account.charged_nano()) / 10**9
    told: Counter[str] = Counter()
    for statement in written:
        for section in statement.sections.values():
            for line in section.lines:
                told[line.kind.value] += line.quantity
            exact = sum((line.charge_usd for line in section.lines), section.rounding_usd)
            assert exact == section.charge_usd
        credits = [line.amount_usd for line in statement.lines if line.kind == "credits"]
        moved = statement.wallet.movements if statement.wallet else ()
        burnt = [each.amount_usd for each in moved if each.kind in ("usage", "adjustment")]
        assert sum(credits) == -sum(burnt)
        due = sum(each.amount_usd for each in statement.lines if each.collected_by != "wallet")
        assert statement.due_usd == due
        reads_right(statement)
    assert +told == await _tokens(account)
    # No instant is in none of them, and none in two.
    starts = [each.period_start for each in written]
    assert starts == [ANCHOR, *(each.period_end for each in written[:-1])]


async def _tokens(account: Account) -> Counter[str]:
    """Add up what the ledger has billed by kind; what has no price is not billed."""
    usage = effective()
    statement = select(
        *(func.coalesce(func.sum(usage.c[f"{kind}_tokens"]), 0).label(kind) for kind in TOKEN_KINDS)
    ).where(usage.c.customer_id == account.customer, usage.c.cost_usd.is_not(None))
    async with account.ledger.begin() as tx:
        row = (await tx.execute(statement)).one()
    return +Counter({kind.value: int(getattr(row, kind)) for kind in TOKEN_KINDS})
