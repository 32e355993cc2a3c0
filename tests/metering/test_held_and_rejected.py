"""Charges that Stripe must not hear of yet, or never, and those that it took and rejected."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.exceptions import ApplicationError

from activities.meter_windows import is_held
from tallystick.contracts import RequestKey
from tallystick.ledger import accounts, outbox
from tallystick.ledger.outbox import Books, PendingEvent
from tallystick.metering import CHARGE_METER
from tallystick.plans.periods import Period
from tests.metering.stand import INPUT, MeteringStand, ago

# Periods from the 31st: 31 January, 28 February, 31 March, 30 April ...
ANCHOR = datetime(2026, 1, 31, 12, tzinfo=UTC)
FEBRUARY, MARCH, APRIL = (
    datetime(2026, m, d, 12, tzinfo=UTC) for m, d in ((2, 28), (3, 31), (4, 30))
)
DAY = timedelta(days=1)


def _event(used: datetime, billed: datetime, closed: datetime, invoiced: datetime) -> PendingEvent:
    return PendingEvent(
        meter_event_id=1,
        key=RequestKey(customer_id="acme", request_id="r"),
        identifier="i",
        meter=CHARGE_METER,
        value=5,
        occurred_at=used,
        first_sent_at=None,
        stripe_customer_id="cus_1",
        billed_at=billed,
        books=Books(ANCHOR, "UTC", closed, invoiced),
    )


@pytest.mark.parametrize(
    ("used", "billed", "closed", "invoiced", "held"),
    [
        # The period is open: whatever is billed in it is on its invoice.
        (FEBRUARY + DAY, FEBRUARY + DAY, FEBRUARY, FEBRUARY, False),
        # Closed, the draft open: what it bills goes to it, what came late must not.
        (FEBRUARY + DAY, FEBRUARY + DAY, MARCH, FEBRUARY, False),
        (FEBRUARY + DAY, MARCH, MARCH, FEBRUARY, True),
        (FEBRUARY + DAY, MARCH + DAY, MARCH, FEBRUARY, True),
        # A first price that came by an adjustment before the period was closed.
        (FEBRUARY + DAY, MARCH - DAY, MARCH, FEBRUARY, False),
        # The invoice is final.
        (FEBRUARY + DAY, MARCH, MARCH, MARCH, False),
        # Two periods closed and not invoiced.
        (FEBRUARY + DAY, MARCH, APRIL, FEBRUARY, True),
        (MARCH + DAY, MARCH + DAY, APRIL, FEBRUARY, False),
        # The account ended inside its last period.
        (FEBRUARY + DAY, FEBRUARY + 9 * DAY, FEBRUARY + 9 * DAY, FEBRUARY, True),
        (FEBRUARY + DAY, FEBRUARY + 8 * DAY, FEBRUARY + 9 * DAY, FEBRUARY, False),
    ],
)
def test_a_charge_is_held_while_the_wrong_invoice_could_collect_it(
    *, used: datetime, billed: datetime, closed: datetime, invoiced: datetime, held: bool
) -> None:
    assert is_held(_event(used, billed, closed, invoiced)) is held


async def _close(stand: MeteringStand, *, days_ago: int) -> Period:
    """Open an account with a period that has ended so many days ago, and close its books."""
    end = ago(stand, days=days_ago)
    async with stand.ledger.begin() as tx:
        account = await accounts.open_account(tx, "acme", end - 31 * DAY, "UTC", end - 31 * DAY)
        period = accounts.period_of(account, 1)
        await accounts.close_until(tx, "acme", period.end)
    return period


async def test_late_usage_waits_for_the_final_invoice_and_its_tokens_do_not(
    stand: MeteringStand,
) -> None:
    await stand.customer()
    period = await _close(stand, days_ago=2)
    late = await stand.use(values=[(CHARGE_METER, 7), (INPUT, 3)], at=period.end - DAY)
    current = await stand.use(values=[(CHARGE_METER, 11)])
    with pytest.raises(ApplicationError) as caught:
        await stand.send(late)
    assert (caught.value.type, caught.value.non_retryable) == ("MeterHeld", False)
    assert caught.value.next_retry_delay == timedelta(minutes=15)
    await stand.send(current)
    assert await stand.counted() == {CHARGE_METER: 11, INPUT: 3}
    async with stand.ledger.begin() as tx:
        await accounts.set_invoiced_until(tx, "acme", period.end)
    await stand.send(late)
    assert await stand.counted() == {CHARGE_METER: 18, INPUT: 3}


async def test_what_is_withdrawn_is_never_sent(stand: MeteringStand) -> None:
    await stand.customer()
    order = await stand.use(values=[(CHARGE_METER, 7)])
    whole = Period(ago(stand, days=1), stand.now() + DAY)
    async with stand.ledger.begin() as tx:
        assert (await outbox.waiting_charges(tx, "acme", whole)).count == 1
        assert await outbox.withdraw_waiting(tx, "acme", whole, stand.now()) == 1
        assert (await outbox.waiting_charges(tx, "acme", whole)).count == 0
    await stand.send(order)
    assert await stand.journal() == []
    (row,) = await stand.events(order)
    assert (row.first_sent_at, row.delivered_at) == (None, None)


async def test_sending_and_withdrawing_exclude_each_other(stand: MeteringStand) -> None:
    await stand.customer()
    order = await stand.use(values=[(CHARGE_METER, 7)])
    whole = Period(ago(stand, days=1), stand.now() + DAY)
    (row,) = await stand.events(order)
    await stand.stripe.hold(row.identifier, at="received")
    sending = asyncio.create_task(stand.send(order))
    await stand.stripe.until_held()
    async with stand.ledger.begin() as tx:  # it is on its way, so it is too late
        assert (await outbox.waiting_charges(tx, "acme", whole)).on_their_way == 1
        assert await outbox.withdraw_waiting(tx, "acme", whole, stand.now()) == 0
    await stand.stripe.control("DELETE", "holds")
    await sending
    assert await stand.counted() == {CHARGE_METER: 7}


async def test_a_withdrawal_between_reading_and_sending_wins(stand: MeteringStand) -> None:
    await stand.customer()
    order = await stand.use(values=[(CHARGE_METER, 7)])
    async with stand.ledger.begin() as tx:
        read = await outbox.pending(tx, [order.key])
    async with stand.ledger.begin() as tx:
        whole = Period(ago(stand, days=1), stand.now() + DAY)
        await outbox.withdraw_waiting(tx, "acme", whole, stand.now())
        assert await outbox.mark_sending(tx, read, stand.now()) == set()


async def test_a_rejected_event_is_parked_and_goes_out_again_under_another_name(
    stand: MeteringStand,
) -> None:
    await stand.customer()
    order = await stand.use(values=[(CHARGE_METER, 7)])
    (row,) = await stand.events(order)
    await stand.stripe.fault("rejected_later", match=row.identifier)
    await stand.send(order)
    assert await stand.counted() == {}
    for reported in (row.identifier, f"{row.identifier}#1", row.identifier):
        async with stand.ledger.begin() as tx:
            whose = await outbox.reject(
                tx, reported=reported, code="no", message="why", event_id="evt", at=stand.now()
            )
        assert whose == order.key
    (parked,) = await stand.events(order)
    assert parked.parked_reason == "Stripe rejected it after its receipt: no: why"
    assert parked.identifier == f"{row.identifier}#r1"
    await stand.send(order)
    assert await stand.counted() == {CHARGE_METER: 7}
    assert [entry["identifier"] for entry in await stand.journal()] == [
        row.identifier,
        parked.identifier,
    ]
    async with stand.ledger.begin() as tx:
        assert (
            await outbox.reject(
                tx, reported="another's", code="no", message="", event_id="evt", at=stand.now()
            )
            is None
        )
