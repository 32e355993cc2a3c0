"""When a move takes effect, and which terms are in force before and after it."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tallystick.ledger import accounts, customers, plan_moves, terms
from tallystick.ledger.customers import PlanInForce
from tallystick.ledger.database import Ledger
from tallystick.plans import CustomerTerms
from tallystick.plans.moves import (
    MoveRefusedError,
    Place,
    anchor_in_utc,
    billing_zone,
    effective_from,
)
from tallystick.plans.periods import billing_period
from tests.accounts.stand import ANCHOR, APRIL, CUSTOMER, FEBRUARY, MARCH, open_account

NOW = datetime(2026, 2, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SMALL, LARGE = Place("small", "hybrid"), Place("large", "hybrid")
METERED = Place("metered", "pass-through")


def _effective(wanted: Place, to_come: str | None = None, **changes: datetime | None) -> datetime:
    bounds = {"period_end": FEBRUARY, "ends_at": None, **changes}
    return effective_from(NOW, SMALL, wanted, to_come=to_come, **bounds)


def test_a_plan_of_the_same_model_begins_at_once() -> None:
    assert _effective(LARGE) == NOW


def test_a_plan_of_another_model_begins_with_the_next_period() -> None:
    assert _effective(METERED) == FEBRUARY
    assert _effective(METERED, period_end=None) == NOW  # no period is open


def test_a_move_to_where_the_customer_is_or_will_be_is_refused() -> None:
    with pytest.raises(MoveRefusedError, match="it is on plan 'small' already"):
        _effective(SMALL)
    with pytest.raises(MoveRefusedError, match="it moves to plan 'metered' already"):
        _effective(METERED, to_come="metered")


def test_a_move_that_is_to_come_can_be_taken_back_or_replaced() -> None:
    assert _effective(SMALL, to_come="metered") == NOW
    assert _effective(LARGE, to_come="metered") == NOW


def test_a_move_that_comes_after_the_end_of_the_account_is_refused() -> None:
    with pytest.raises(MoveRefusedError, match="its account ends first, at 2026-02-28"):
        _effective(METERED, ends_at=FEBRUARY)
    assert _effective(LARGE, ends_at=FEBRUARY) == NOW


@pytest.mark.parametrize(
    ("boundary", "ordinal", "number"),
    [
        (datetime(2026, 7, 15, 3, tzinfo=UTC), 5, 5),
        (datetime(2026, 3, 31, 22, tzinfo=UTC), 3, 3),
        (datetime(2026, 3, 31, 22, tzinfo=UTC), 2, 3),  # no 31 February
        (datetime(2026, 7, 31, 22, tzinfo=UTC), 2, 3),  # no 31 June
        (datetime(2028, 3, 29, 22, tzinfo=UTC), 14, 15),  # no 29 February 2027
        (datetime(2026, 7, 31, 22, tzinfo=UTC), 1, 1),
    ],
)
def test_an_account_that_is_counted_in_utc_goes_on_from_its_boundary(
    boundary: datetime, ordinal: int, number: int
) -> None:
    anchor = anchor_in_utc(boundary, ordinal)
    # The same instants that a subscription has which begins at the boundary.
    for months in range(14):
        ours = billing_period(anchor, "UTC", number + months)
        assert ours == billing_period(boundary, "UTC", 1 + months)


def test_only_an_account_without_a_subscription_is_counted_in_the_customers_zone() -> None:
    assert billing_zone("prepaid", "Europe/Berlin") == "Europe/Berlin"
    assert {billing_zone(model, "Europe/Berlin") for model in ("pass-through", "hybrid")} == {"UTC"}


async def _move(ledger: Ledger, plan: str, valid_from: datetime) -> None:
    async with ledger.begin() as tx:
        await accounts.lock(tx, CUSTOMER)
        await plan_moves.add(tx, CUSTOMER, plan, valid_from)


async def _plan_at(ledger: Ledger, at: datetime) -> str:
    async with ledger.begin() as tx:
        standing = await terms.standing(tx, CUSTOMER, at)
        (listed,) = await customers.list_all(tx, at)
    assert standing is not None
    assert standing.agreed is not None
    assert standing.agreed.plan == standing.customer.plan == listed.plan
    return listed.plan


async def test_the_latest_decision_in_force_is_the_plan(ledger: Ledger) -> None:
    await open_account(ledger)
    await _move(ledger, "at-cost", NOW)
    await _move(ledger, "prepaid", FEBRUARY)
    async with ledger.begin() as tx:
        to_come = await plan_moves.to_come(tx, CUSTOMER, NOW)
        assert to_come is not None
        assert to_come.plan == "prepaid"
        assert await plan_moves.to_come(tx, CUSTOMER, FEBRUARY) is None
    days = (NOW - DAY, NOW, FEBRUARY - DAY, FEBRUARY, MARCH)
    plans = ["pass-through", "at-cost", "at-cost", "prepaid", "prepaid"]
    assert [await _plan_at(ledger, day) for day in days] == plans

    # Decided later, from an earlier instant on: the move to prepaid is off.
    await _move(ledger, "pass-through", NOW + DAY)
    plans[2:] = ["pass-through"] * 3
    assert [await _plan_at(ledger, day) for day in days] == plans
    async with ledger.begin() as tx:
        assert await plan_moves.to_come(tx, CUSTOMER, NOW + DAY) is None


async def _add_row(ledger: Ledger, plan: str, valid_from: datetime, markup: str) -> None:
    async with ledger.begin() as tx:
        row = {"model": "pass-through", "markup": markup}
        assert await customers.add_plan(tx, PlanInForce(plan, valid_from, row))


async def test_segments_split_where_a_row_of_the_terms_changes_and_nowhere_else(
    ledger: Ledger,
) -> None:
    await open_account(ledger)
    await _add_row(ledger, "new", NOW, "0.4")
    await _add_row(ledger, "new", NOW + 2 * DAY, "0.5")
    await _add_row(ledger, "pass-through", NOW + 3 * DAY, "0.3")  # not the customer's then
    await _move(ledger, "new", NOW + DAY)
    await _move(ledger, "new", NOW + 4 * DAY)  # changes nothing
    await _move(ledger, "pass-through", NOW + 5 * DAY)
    await _move(ledger, "prepaid", FEBRUARY)
    async with ledger.begin() as tx:
        own = CustomerTerms(discount=Decimal("0.1"))
        assert await terms.add(tx, CUSTOMER, NOW + 6 * DAY, own)
        found = await plan_moves.segments(tx, CUSTOMER, ANCHOR, FEBRUARY)
        after = await plan_moves.segments(tx, CUSTOMER, FEBRUARY, APRIL)
        for each in [*found, *after]:
            for at in (each.start, each.end - timedelta(microseconds=1)):
                standing = await terms.standing(tx, CUSTOMER, at)
                assert standing is not None
                assert standing.agreed == each.agreed
    told = [(each.start, each.agreed.plan, each.agreed.terms.markup) for each in found]
    assert told == [
        (ANCHOR, "pass-through", Decimal("0.2")),
        (NOW + DAY, "new", Decimal("0.4")),
        (NOW + 2 * DAY, "new", Decimal("0.5")),
        (NOW + 5 * DAY, "pass-through", Decimal("0.3")),
        (NOW + 6 * DAY, "pass-through", Decimal("0.3")),
    ]
    assert [each.end for each in found] == [each.start for each in found[1:]] + [FEBRUARY]
    assert [each.agreed.terms.discount for each in found] == [0, 0, 0, 0, Decimal("0.1")]
    assert [(each.start, each.end, each.agreed.plan) for each in after] == [
        (FEBRUARY, APRIL, "prepaid")
    ]


async def test_a_span_before_the_plan_had_terms_has_no_segment(ledger: Ledger) -> None:
    await open_account(ledger, plan="late")
    await _add_row(ledger, "late", NOW, "0")
    async with ledger.begin() as tx:
        (only,) = await plan_moves.segments(tx, CUSTOMER, ANCHOR, FEBRUARY)
    assert (only.start, only.end) == (NOW, FEBRUARY)
