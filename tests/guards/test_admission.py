"""Admission on its own, against a real ledger and Claude's count: what it reserves, and when."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from temporalio.exceptions import ApplicationError

from tallystick.contracts import Admission, RequestKey
from tallystick.errors import (
    CONVERSATION_CAP_REACHED,
    CUSTOMER_SUSPENDED,
    ROOM_OCCUPIED,
    SPEND_CAP_REACHED,
)
from tallystick.ledger import accounts, adjustments, attempts, customers, reservations, terms
from tallystick.ledger.adjustments import NewAdjustment
from tallystick.ledger.attempts import NewAttempt
from tallystick.ledger.customers import PlanInForce
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Customer
from tallystick.plans import CustomerTerms, PlanTerms
from tallystick.plans.periods import billing_period, calendar_month
from tests.guards.desk import Desk, open_desk
from tests.guards.room import charge_at, reserved
from workflows.claude_request import CALL_PATIENCE, PARK_LONGEST

ZONE = "Pacific/Auckland"
SONNET_OUTPUT = Decimal("0.00001")
DAWN, DUSK = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


@asynccontextmanager
async def _desk(ledger: Ledger, plan: str = "pass-through") -> AsyncIterator[Desk]:
    """Admit `acme`, on the plan that adds a fifth."""
    async with ledger.begin() as tx:
        await customers.add(
            tx, Customer(customer_id="acme", name="acme", plan=plan, time_zone=ZONE)
        )
    async with open_desk(ledger) as desk:
        yield desk


def _key(request_id: str) -> RequestKey:
    return RequestKey(customer_id="acme", request_id=request_id)


async def test_nothing_is_reserved_where_no_cap_applies(ledger: Ledger) -> None:
    async with _desk(ledger) as desk:
        assert not (await desk.admit("r-1")).reserved
        assert await reserved(ledger) == {}


async def test_an_admission_that_runs_twice_reserves_once(ledger: Ledger) -> None:
    async with _desk(ledger) as desk:
        await desk.cap("0.02")  # room for one request and not for two
        for _ in range(2):
            assert (await desk.admit("r-1")).reserved
        (amount,) = (await reserved(ledger)).values()
        # A thousand output tokens and a fifth, and somewhat more for the prompt.
        assert 1_000 * SONNET_OUTPUT * Decimal("1.2") < amount < Decimal("0.013")


async def test_a_repeat_that_is_refused_leaves_nothing_reserved(ledger: Ledger) -> None:
    async with _desk(ledger) as desk:
        await desk.cap("1")
        await desk.admit("r-1")
        async with ledger.begin() as tx:
            await customers.suspend(tx, "acme", "payment", "unpaid")
        assert (await desk.refused("r-1")).type == CUSTOMER_SUSPENDED.type
        assert await reserved(ledger) == {}


async def test_admissions_at_the_same_moment_share_the_room_that_there_is(ledger: Ledger) -> None:
    async with _desk(ledger) as desk:
        await desk.cap("0.1")  # room for eight of at least 0.012 each
        ends = await asyncio.gather(
            *(desk.admit(f"r-{each}") for each in range(30)), return_exceptions=True
        )
        admitted = [end for end in ends if isinstance(end, Admission)]
        turned_away = [end for end in ends if isinstance(end, ApplicationError)]
        assert len(admitted) + len(turned_away) == 30
        assert {(error.type, error.non_retryable) for error in turned_away} == {
            (ROOM_OCCUPIED.type, False)
        }
        held = await reserved(ledger)
        assert len(held) == len(admitted) > 1
        assert sum(held.values()) <= Decimal("0.1") < sum(held.values()) + max(held.values())


async def test_both_caps_hold_each_for_what_it_covers(ledger: Ledger) -> None:
    async with _desk(ledger) as desk:
        await desk.cap("1")
        talk = {"conversation_id": "talk", "max_conversation_usd": "0.02"}
        await desk.admit("r-1", **talk)
        assert (await desk.refused("r-2", **talk)).type == ROOM_OCCUPIED.type
        await charge_at(ledger, _key("r-1"), datetime.now(UTC), 10**7, conversation_id="talk")
        refused = await desk.refused("r-2", **talk)
        assert refused.type == CONVERSATION_CAP_REACHED.type
        await desk.admit("r-3", conversation_id="another", max_conversation_usd="0.02")
        await desk.admit("r-4", conversation_id="talk")
        assert set(await reserved(ledger)) == {"r-3", "r-4"}


async def test_a_conversation_belongs_to_one_customer(ledger: Ledger) -> None:
    async with _desk(ledger) as desk:
        stranger = RequestKey(customer_id="bolt", request_id="r-1")
        await charge_at(ledger, stranger, datetime.now(UTC), 49 * 10**9, conversation_id="talk")
        assert (await desk.admit("r-1", conversation_id="talk", max_cost_usd="2")).warnings == ()


async def test_a_month_ends_where_the_customer_is(ledger: Ledger) -> None:
    async with _desk(ledger) as desk:
        await desk.cap("1")
        begun = calendar_month(datetime.now(UTC), ZONE).start
        await charge_at(ledger, _key("old"), begun - timedelta(microseconds=1), 10**9)
        await desk.admit("r-1")
        await charge_at(ledger, _key("new"), begun, 10**9)
        assert (await desk.refused("r-2")).type == SPEND_CAP_REACHED.type


async def test_a_reservation_lapses_a_day_after_the_last_sign_of_its_request(
    ledger: Ledger,
) -> None:
    now = datetime.now(UTC)
    async with _desk(ledger) as desk:
        await desk.cap("1")
        async with ledger.begin() as tx:
            for name, age in (("gone", 25), ("parked", 25), ("young", 23)):
                at = now - timedelta(hours=age)
                await reservations.reserve(
                    tx, _key(name), conversation_id=None, nano_usd=10**8, at=at
                )
            new = NewAttempt(_key("parked"), "f", "claude", None, 1, 1)
            await attempts.begin(tx, new, now - timedelta(hours=1), max_unknown=5)
        await desk.admit("r-1")
        assert set(await reserved(ledger)) == {"parked", "young", "r-1"}


def test_no_request_in_flight_outlives_its_reservation() -> None:
    # It waits for its call no longer than this, and while it is parked it calls more often.
    assert max(CALL_PATIENCE, PARK_LONGEST) <= reservations.LAPSE


async def test_a_cap_refuses_on_claudes_count_and_never_on_a_size_alone(ledger: Ledger) -> None:
    async with _desk(ledger) as desk:
        # 40,000 characters: at most 40,000 tokens by size, and 10,000 by the stand-in's count.
        # At $2 a million and a fifth on top that is $0.096 or $0.024.
        await desk.cap("0.03")
        await desk.admit("r-1", text="word " * 8_000, max_tokens=1)
        (amount,) = (await reserved(ledger)).values()
        assert Decimal("0.024") <= amount < Decimal("0.0241")


async def test_what_is_reserved_follows_the_terms_in_force(ledger: Ledger) -> None:
    now = datetime.now(UTC)
    async with _desk(ledger) as desk:
        await desk.cap("1")
        await desk.admit("r-plan")
        async with ledger.begin() as tx:
            half = CustomerTerms(markup=Decimal(0), discount=Decimal("0.5"))
            await terms.add(tx, "acme", now, half)
            free = CustomerTerms(discount=Decimal(1))
            await terms.add(tx, "acme", now + timedelta(hours=1), free)
        await desk.admit("r-half")
        held = await reserved(ledger)
        # 1.2 of the cost and 0.5 of it
        assert held["r-half"] * 12 == held["r-plan"] * 5


async def test_an_adjustment_counts_as_spent(ledger: Ledger) -> None:
    async with _desk(ledger) as desk:
        await desk.cap("1")
        await charge_at(ledger, _key("unpriced"), datetime.now(UTC), None)
        await desk.admit("r-1")
        async with ledger.begin() as tx:
            async for usage in adjustments.booked_usage(tx, DAWN, DUSK):
                late = {"price_book": "later", "reason": "priced at last", "status": "priced"}
                price = {"cost_usd": Decimal(1), "charge_nano_usd": 10**9}
                await adjustments.book(
                    tx, NewAdjustment(usage, **late, **price, tokens=usage.tokens, lines=())
                )
        refused = await desk.refused("r-2")
        assert (refused.type, refused.details[0]["spent_usd"]) == (SPEND_CAP_REACHED.type, "1")


async def test_the_plans_cap_holds_for_whoever_has_none_of_its_own(ledger: Ledger) -> None:
    capped = PlanTerms(model="pass-through", markup=Decimal("0.2"), spend_cap_usd=Decimal("0.02"))
    async with ledger.begin() as tx:
        row = PlanInForce("capped", DAWN, capped.model_dump(mode="json"))
        await customers.add_plan(tx, row)
    async with _desk(ledger, "capped") as desk:
        await desk.admit("r-1")
        assert (await desk.refused("r-2")).type == ROOM_OCCUPIED.type
        await desk.cap("0.04")
        await desk.admit("r-2")


async def test_with_an_account_a_cap_covers_its_billing_period(ledger: Ledger) -> None:
    async with _desk(ledger) as desk:
        await desk.cap("1")
        async with ledger.begin() as tx:
            earlier = datetime.now(UTC) - timedelta(hours=2)
            begun = (await accounts.open_account(tx, "acme", earlier, "UTC", earlier)).anchor
        await charge_at(ledger, _key("before"), begun - timedelta(microseconds=1), 10**9)
        await desk.admit("r-1")
        await charge_at(ledger, _key("in-it"), begun, 10**9)
        refused = await desk.refused("r-2")
        _, end = billing_period(begun, "UTC", 1)
        assert f"the next period, which begins {end.isoformat()}" in refused.message
