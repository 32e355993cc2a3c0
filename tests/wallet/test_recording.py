"""Recording by the production activity: one transaction, one bill, and word of what follows."""

from datetime import UTC, datetime
from decimal import Decimal

from sqlalchemy import select
from temporalio.testing import ActivityEnvironment

from activities.ledger import LedgerActivities
from tallystick.contracts import RecordedUsage, RecordOrder, RequestKey
from tallystick.ledger import attempts, customers, reservations
from tallystick.ledger.account_tables import Notice
from tallystick.ledger.attempts import Begun, Completion, NewAttempt
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Customer, Outcome
from tests.guards.room import reserved
from tests.rerate.stand import SONNET, reply
from tests.wallet.purse import NOON, Purse, add_plan, nano

DOLLAR = {"prompt": 0, "answer": 100_000}
"""A reply that costs a dollar: at $10 a million."""


async def _answered(ledger: Ledger, request_id: str) -> RecordOrder:
    key = RequestKey(customer_id="acme", request_id=request_id)
    message = reply(**DOLLAR)
    async with ledger.begin() as tx:
        begun = await attempts.begin(
            tx, NewAttempt(key, "f", SONNET, None, 1, 1), NOON, max_unknown=5
        )
        assert isinstance(begun, Begun)
        done = Completion(Outcome.SUCCEEDED, usage=message["usage"], reply=message)
        await attempts.complete(tx, begun.attempt_id, done, NOON)
    return RecordOrder(key=key, attempt_id=begun.attempt_id)


async def _record(ledger: Ledger, order: RecordOrder, told: list[str]) -> RecordedUsage:
    activities = LedgerActivities(ledger, on_news=told.append)
    return await ActivityEnvironment().run(activities.record_usage, order)


async def test_a_prepaid_record_burns_releases_and_is_repeated_without_effect(
    ledger: Ledger,
) -> None:
    purse = await Purse(ledger).open()
    await purse.give(5, "paid")
    order = await _answered(ledger, "r-1")
    async with ledger.begin() as tx:
        await reservations.reserve(
            tx, order.key, conversation_id=None, nano_usd=nano(2), at=datetime.now(UTC)
        )
    told: list[str] = []
    first, again = [await _record(ledger, order, told) for _ in range(2)]
    assert first == again
    assert first.bill.charge_usd == Decimal(1)
    assert await purse.balance() == 4
    assert await reserved(ledger) == {}
    assert told == []


async def test_news_is_passed_on_once_it_is_committed(ledger: Ledger) -> None:
    purse = await Purse(ledger).open(
        low_balance_usd="3", top_up={"below_usd": "3", "amount_usd": "10"}
    )
    await purse.give(4, "paid")
    orders = [await _answered(ledger, f"r-{number}") for number in range(3)]
    told: list[str] = []
    await _record(ledger, orders[0], told)
    assert told == []
    for order in (orders[1], orders[1]):
        await _record(ledger, order, told)
    assert told == ["acme"]
    assert len(await purse.top_ups()) == len(await purse.notices("low_balance")) == 1


async def test_what_was_in_flight_without_an_account_is_recorded_and_shown_to_an_operator(
    ledger: Ledger,
) -> None:
    await add_plan(ledger, "credits", {"model": "prepaid"})
    async with ledger.begin() as tx:
        await customers.add(tx, Customer(customer_id="acme", name="acme", plan="credits"))
    order = await _answered(ledger, "r-1")
    told: list[str] = []
    for _ in range(2):
        assert (await _record(ledger, order, told)).bill.charge_usd == Decimal(1)
    assert told == ["acme"]
    async with ledger.begin() as tx:
        (notice,) = await tx.execute(select(Notice))
    assert (notice.audience, notice.facts["charge_usd"]) == ("operator", "1")
