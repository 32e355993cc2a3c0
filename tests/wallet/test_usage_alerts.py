"""Shares of spend caps and allowances, told once a period each by looking every minute."""

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select
from sqlmodel import col
from temporalio.testing import ActivityEnvironment

from activities.wallet import WalletActivities
from tallystick.contracts import RequestKey
from tallystick.ledger import accounts, adjustments, customers, plan_moves, usage, usage_watch
from tallystick.ledger.account_tables import Alert, Notice
from tallystick.ledger.adjustments import NewAdjustment
from tallystick.ledger.database import Ledger, entity
from tallystick.ledger.tables import Customer
from tallystick.pricing import TokenCounts
from tests.support.records import PLANS_BEGAN, served
from tests.wallet.purse import add_plan, nano, usd_of

ANCHOR = datetime(2026, 3, 15, tzinfo=UTC)
NOON = datetime(2026, 3, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)
_numbers = itertools.count(1)


async def _customer(
    ledger: Ledger, name: str, *, account: bool = True, cap: int | None = None, **agreed: Any
) -> None:
    await add_plan(ledger, f"plan-of-{name}", {"model": "pass-through", **agreed})
    row = Customer(
        customer_id=name, name=name, plan=f"plan-of-{name}", spend_cap_usd=cap and Decimal(cap)
    )
    async with ledger.begin() as tx:
        await customers.add(tx, row)
        if account:
            await accounts.open_account(tx, name, ANCHOR, "UTC", ANCHOR)


async def _use(ledger: Ledger, name: str, usd: str | int, at: datetime = NOON, **more: Any) -> str:
    key = RequestKey(customer_id=name, request_id=f"request-{next(_numbers)}")
    async with ledger.begin() as tx:
        new = await served(tx, key, at, nano(usd), plan=f"plan-of-{name}", **more)
        await usage.record(tx, new)
    return key.request_id


async def _look(ledger: Ledger, now: datetime = NOON + DAY) -> int:
    return await ActivityEnvironment().run(WalletActivities(ledger, lambda: now).watch_usage)


async def _told(ledger: Ledger, subject: str) -> list[tuple[str, int]]:
    """Return whom what was told, in turn, and check that each alert was told."""
    async with ledger.begin() as tx:
        alerts = await tx.execute(select(Alert).where(col(Alert.subject) == subject))
        notices = await tx.execute(
            select(Notice)
            .where(col(Notice.facts)["subject"].astext == subject)
            .order_by(col(Notice.notice_id))
        )
        told = [(row.customer_id, row.facts["percent"]) for row in notices]
    assert sorted((row.customer_id, row.percent) for row in alerts) == sorted(told)
    return told


async def test_shares_of_a_cap_are_told_once_a_period_to_whom_they_concern(ledger: Ledger) -> None:
    await _customer(ledger, "own", cap=10)
    await _customer(ledger, "of-plan", spend_cap_usd="100")
    await _customer(ledger, "free")
    for name in ("own", "of-plan", "free"):
        await _use(ledger, name, "7.99")
    assert await _look(ledger) == 1
    assert await _told(ledger, "cap") == [("own", 50)]
    await _use(ledger, "own", "0.01")
    await _use(ledger, "of-plan", "95")
    assert await _look(ledger) == 2
    assert await _look(ledger) == 0
    assert await _told(ledger, "cap") == [
        ("own", 50), ("own", 80), ("of-plan", 50), ("of-plan", 80), ("of-plan", 100)
    ]  # fmt: skip
    # The next period, which begins on the 15th, begins from nothing.
    april = datetime(2026, 4, 16, tzinfo=UTC)
    await _use(ledger, "own", 5, april)
    assert await _look(ledger, april) == 1
    assert (await _told(ledger, "cap"))[-1] == ("own", 50)


async def test_without_an_account_a_cap_is_the_calendars(ledger: Ledger) -> None:
    await _customer(ledger, "acme", account=False, cap=10)
    await _use(ledger, "acme", 3, datetime(2026, 3, 1, tzinfo=UTC))
    await _use(ledger, "acme", 2, NOON)
    assert await _look(ledger) == 1
    assert await _told(ledger, "cap") == [("acme", 50)]


async def test_a_correction_is_looked_at_like_usage(ledger: Ledger) -> None:
    await _customer(ledger, "acme", cap=10)
    await _use(ledger, "acme", 4)
    assert await _look(ledger) == 0
    async with ledger.begin() as tx:
        (used,) = [
            each async for each in adjustments.booked_usage(tx, PLANS_BEGAN, NOON + DAY, "acme")
        ]
        late = {"price_book": "later", "reason": "corrected", "status": "priced"}
        more = {"cost_usd": usd_of(nano(1)), "charge_nano_usd": nano(1)}
        await adjustments.book(
            tx, NewAdjustment(used, **late, **more, tokens=TokenCounts(), lines=())
        )
    assert await _look(ledger) == 1
    assert await _told(ledger, "cap") == [("acme", 50)]


HYBRID = {"model": "hybrid", "base_fee_usd": "9"}


async def test_shares_of_included_money_are_told_by_the_period_that_bills_it(
    ledger: Ledger,
) -> None:
    await _customer(ledger, "acme", **HYBRID, allowance={"usd": "10"})
    await _use(ledger, "acme", 5)
    assert await _look(ledger) == 1
    (notice,) = await _notices(ledger)
    assert notice.message == (
        "50 % of the usage that the plan includes in this period is used up: $5 of $10."
    )
    async with ledger.begin() as tx:
        await accounts.close_until(tx, "acme", datetime(2026, 4, 15, tzinfo=UTC))
    # Served in March and recorded too late for its period: the next one's allowance bears it.
    await _use(ledger, "acme", 8)
    assert await _look(ledger, datetime(2026, 4, 16, tzinfo=UTC)) == 1
    assert await _told(ledger, "allowance") == [("acme", 50), ("acme", 50), ("acme", 80)]


async def test_an_account_that_has_ended_includes_nothing_any_more(ledger: Ledger) -> None:
    await _customer(ledger, "acme", **HYBRID, allowance={"usd": "10"})
    async with ledger.begin() as tx:
        await accounts.set_cancel_at(tx, "acme", NOON + DAY)
    await _use(ledger, "acme", 8)
    assert await _look(ledger, NOON + 90 * DAY) == 0
    assert await _look(ledger, NOON) == 1


async def test_of_included_tokens_the_kind_that_ends_first_counts(ledger: Ledger) -> None:
    included = {"tokens": {"input": 1_000_000, "output": 1_000}}
    await _customer(ledger, "acme", **HYBRID, allowance=included)
    await _use(ledger, "acme", 1, input_tokens=400_000, output_tokens=700)
    assert await _look(ledger) == 1
    (notice,) = await _notices(ledger)
    assert notice.message.endswith("is used up: 700 of 1,000 output tokens.")


async def test_what_is_included_is_prorated_where_the_plan_changes(ledger: Ledger) -> None:
    await _customer(ledger, "acme", **HYBRID, allowance={"usd": "310"})
    await add_plan(ledger, "smaller", {**HYBRID, "allowance": {"usd": "31"}})
    async with ledger.begin() as tx:
        # After 10 of the 31 days: 100 of the one and 21 of the other are included.
        await plan_moves.add(tx, "acme", "smaller", ANCHOR + 10 * DAY)
    await _use(ledger, "acme", "60.499999999", ANCHOR + 11 * DAY)
    assert await _look(ledger, ANCHOR + 12 * DAY) == 0
    await _use(ledger, "acme", "0.000000001", ANCHOR + 11 * DAY)
    assert await _look(ledger, ANCHOR + 12 * DAY) == 1
    assert await _told(ledger, "allowance") == [("acme", 50)]


async def test_two_who_look_at_once_tell_once(ledger: Ledger) -> None:
    for number in range(20):
        await _customer(ledger, f"customer-{number}", cap=1)
        await _use(ledger, f"customer-{number}", 1)
    assert sum(await asyncio.gather(*(_look(ledger) for _ in range(4)))) == 20
    assert len(await _told(ledger, "cap")) == 60


async def test_what_is_committed_out_of_order_is_not_missed(ledger: Ledger) -> None:
    await _customer(ledger, "slow", cap=1)
    await _customer(ledger, "quick", cap=1)
    key = RequestKey(customer_id="slow", request_id="numbered-first")
    async with ledger.begin() as tx:
        await usage.record(tx, await served(tx, key, NOON, nano(1), plan="plan-of-slow"))
        await _use(ledger, "quick", 1)
        assert await _look(ledger) == 1
    assert await _look(ledger) == 1
    assert {name for name, _ in await _told(ledger, "cap")} == {"slow", "quick"}


async def test_only_what_is_new_is_looked_at(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_watch, "BEHIND", timedelta(0))
    await _customer(ledger, "acme", cap=10)
    await _use(ledger, "acme", 5, NOON - 9 * DAY)  # of the period before
    await _use(ledger, "acme", 4)
    assert await _look(ledger) == 0
    async with ledger.begin() as tx:
        await customers.set_spend_cap(tx, "acme", usd_of(nano(4)))
    assert await _look(ledger) == 0
    await _use(ledger, "acme", 0)
    assert await _look(ledger) == 1


async def _notices(ledger: Ledger) -> list[Notice]:
    async with ledger.begin() as tx:
        return [entity(Notice, row) for row in await tx.execute(select(Notice))]
