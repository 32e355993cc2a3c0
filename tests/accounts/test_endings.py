"""Suspensions that only their like can lift, periods without an invoice, and the end."""

from datetime import UTC, datetime, timedelta

import pytest

from activities.accounts import AccountActivities
from tallystick.ledger import accounts, customers, plan_moves, terms
from tallystick.ledger.customers import Suspender
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Customer
from tallystick.plans.periods import Period
from tests.accounts.stand import (
    CUSTOMER,
    FEBRUARY,
    MARCH,
    account_of,
    close,
    open_account,
    order,
)

MINUTE = timedelta(minutes=1)
BERLIN = "Europe/Berlin"


async def _suspend(ledger: Ledger, by: Suspender) -> bool:
    async with ledger.begin() as tx:
        return await customers.suspend(tx, CUSTOMER, by, f"because of {by}")


async def _customer(ledger: Ledger, at: datetime = FEBRUARY) -> Customer:
    async with ledger.begin() as tx:
        standing = await terms.standing(tx, CUSTOMER, at)
    assert standing is not None
    return standing.customer


@pytest.mark.parametrize(
    ("first", "second", "left"),
    [
        ("payment", "payment", "payment"),
        ("payment", "operator", "operator"),
        ("operator", "payment", "operator"),
        ("operator", "ended", "ended"),
        ("ended", "operator", "ended"),
        ("ended", "payment", "ended"),
    ],
)
async def test_a_suspension_gives_way_to_a_harder_one_only(
    ledger: Ledger, first: Suspender, second: Suspender, left: str
) -> None:
    await open_account(ledger)
    assert await _suspend(ledger, first)
    assert await _suspend(ledger, second) == (left == second)
    customer = await _customer(ledger)
    assert (customer.suspended_by, customer.status_reason) == (left, f"because of {left}")
    async with ledger.begin() as tx:
        assert await customers.restore(tx, CUSTOMER, "payment") == (left == "payment")
        assert await customers.restore(tx, CUSTOMER, "operator") == (left == "operator")
    assert ((await _customer(ledger)).status == "suspended") == (left == "ended")


async def test_an_account_is_refused_from_its_end_on_and_ends_once_its_books_are_closed(
    ledger: Ledger,
) -> None:
    await open_account(ledger)
    end = FEBRUARY - timedelta(days=9)
    async with ledger.begin() as tx:
        assert await accounts.set_cancel_at(tx, CUSTOMER, FEBRUARY)
        assert await accounts.set_cancel_at(tx, CUSTOMER, end)  # brought forward
        assert not await accounts.set_cancel_at(tx, CUSTOMER, FEBRUARY)
    account = await account_of(ledger)
    assert accounts.period_of(account, 1) == Period(account.anchor, end)
    assert (await _customer(ledger, end - MINUTE)).status == "active"
    refused = await _customer(ledger, end)
    assert (refused.status, refused.suspended_by) == ("suspended", "ended")
    assert refused.status_reason == "its account ended at 2026-02-19 00:00 UTC"

    steps = AccountActivities(ledger)
    await steps.end_account(order(end + MINUTE, 1))
    assert (await account_of(ledger)).ended_at is None  # its books are open
    await steps.close_books(order(end + MINUTE, 1))
    for minutes in (2, 3):
        await steps.end_account(order(end + minutes * MINUTE, 1))
    account = await account_of(ledger)
    assert (account.ended_at, account.invoiced_until) == (end + 2 * MINUTE, end)
    async with ledger.begin() as tx:
        stored = await customers.get(tx, CUSTOMER)
        assert stored is not None
        assert (stored.suspended_by, stored.status_reason) == ("ended", refused.status_reason)
        assert not await accounts.set_cancel_at(tx, CUSTOMER, end - MINUTE)


async def test_a_prepaid_period_is_finished_in_the_customers_zone(ledger: Ledger) -> None:
    anchor = datetime(2026, 1, 31, 23, tzinfo=UTC)  # 1 February, 00:00
    await open_account(ledger, "prepaid", BERLIN, anchor)
    steps = AccountActivities(ledger)
    for ordinal, end in ((1, (2, 28, 23)), (2, (3, 31, 22))):
        now = datetime(2026, *end, tzinfo=UTC) + MINUTE
        await steps.close_books(order(now, ordinal))
        await steps.finish_period(order(now, ordinal))
        assert (await account_of(ledger)).invoiced_until == now - MINUTE
    account = await account_of(ledger)
    assert (account.time_zone, account.anchor) == (BERLIN, anchor)


async def test_a_prepaid_account_that_moves_is_counted_as_stripe_counts_from_there(
    ledger: Ledger,
) -> None:
    await open_account(ledger, "prepaid", BERLIN, datetime(2026, 1, 31, 23, tzinfo=UTC))
    boundary = datetime(2026, 3, 31, 22, tzinfo=UTC)  # 1 April, 00:00, by summer time
    async with ledger.begin() as tx:
        await plan_moves.add(tx, CUSTOMER, "hybrid", boundary)
        await close(tx, boundary)
    steps = AccountActivities(ledger)
    for _ in range(2):
        await steps.finish_period(order(boundary + MINUTE, 2))
        account = await account_of(ledger)
        assert (account.invoiced_until, account.time_zone) == (boundary, "UTC")
        # A subscription that begins on 31 March, 22:00 renews on 30 April and 31 May.
        april, may = (datetime(2026, *end, 22, tzinfo=UTC) for end in ((4, 30), (5, 31)))
        assert accounts.period_of(account, 3) == Period(boundary, april)
        assert accounts.period_of(account, 4) == Period(april, may)


async def test_a_period_is_not_finished_before_its_books_are_closed(ledger: Ledger) -> None:
    await open_account(ledger, "prepaid")
    await AccountActivities(ledger).finish_period(order(MARCH, 1))
    assert (await account_of(ledger)).invoiced_until < FEBRUARY
