"""Stripe's windows: 24 hours for an identifier, 35 days for a timestamp, and what lies beyond."""

from datetime import UTC, datetime, timedelta

import pytest
from temporalio.exceptions import ApplicationError

from activities.meter_windows import Step, first_step, step_after_look_up
from activities.stripe_clients import Refusal
from tallystick.contracts import MeterOrder, RequestKey
from tallystick.ledger.database import Ledger
from tallystick.ledger.outbox import PendingEvent, WindowSums
from tests.metering.stand import INPUT, MeteringStand, ago, metering_stand

NOW = datetime(2026, 11, 10, 12, tzinfo=UTC)


def _event(*, used: timedelta, sent: timedelta | None = None, value: int = 5) -> PendingEvent:
    return PendingEvent(
        meter_event_id=1,
        key=RequestKey(customer_id="acme", request_id="r"),
        identifier="i",
        meter=INPUT,
        value=value,
        occurred_at=NOW - used,
        first_sent_at=None if sent is None else NOW - sent,
        stripe_customer_id="cus_1",
        billed_at=NOW - used,
    )


def _name(step: Step | Refusal) -> str:
    return step.row.type if isinstance(step, Refusal) else step.name


@pytest.mark.parametrize(
    ("used", "sent", "expected"),
    [
        ({"minutes": 1}, None, "SEND"),
        ({"days": 33, "hours": 23}, None, "SEND"),
        ({"days": 34}, None, "MeterWindowPassed"),
        ({"days": 1}, {"hours": 22, "minutes": 59}, "SEND"),
        ({"days": 1}, {"hours": 23}, "LOOK_UP"),
        # First sent in time: its resends end before the 35 days do.
        ({"days": 34, "hours": 22}, {"hours": 22, "minutes": 59}, "SEND"),
        ({"days": 40}, {"days": 39}, "LOOK_UP"),
    ],
)
def test_what_the_outbox_alone_decides(
    used: dict[str, float], sent: dict[str, float] | None, expected: str
) -> None:
    event = _event(used=timedelta(**used), sent=timedelta(**sent) if sent else None)
    assert _name(first_step(event, NOW)) == expected


@pytest.mark.parametrize(
    ("days", "counted", "expected"),
    [
        (2, 12, "DELIVERED"),
        (40, 12, "DELIVERED"),
        (2, 7, "SEND"),
        (34.5, 7, "MeterOutcomeUnknown"),
        (35.5, 7, "MeterWindowPassed"),
        (2, 8, "MeterOutcomeUnknown"),
        (2, 0, "MeterOutcomeUnknown"),
        (2, 13, "MeterOutcomeUnknown"),
    ],
)
def test_what_the_summary_of_a_minute_decides(days: float, counted: int, expected: str) -> None:
    event = _event(used=timedelta(days=days), sent=timedelta(days=days))
    known = WindowSums(delivered=7, undelivered=5)
    assert _name(step_after_look_up(event, NOW, known=known, counted=counted)) == expected


async def _lost(stand: MeteringStand, fault: str, at: datetime | None = None) -> MeterOrder:
    """Use something whose event meets the fault on its way."""
    order = await stand.use(values=[(INPUT, 5)], at=at)
    await stand.stripe.fault(fault, match="tallystick-")
    with pytest.raises(ApplicationError):
        await stand.send(order)
    return order


async def test_an_event_that_had_counted_is_found_and_not_sent_again(stand: MeteringStand) -> None:
    await stand.customer()
    order = await _lost(stand, "no_answer")
    stand.stripe.clock.advance(hours=25)  # a resend would count a second time
    assert (await stand.send(order)).delivered == 1
    assert len(await stand.journal()) == 1
    (row,) = await stand.events(order)
    assert row.delivered_at == stand.now()


async def test_an_event_that_had_not_counted_is_sent_under_its_identifier(
    stand: MeteringStand,
) -> None:
    await stand.customer()
    order = await _lost(stand, "reset")
    used_at = int(stand.stripe.clock())
    stand.stripe.clock.advance(hours=25)
    assert (await stand.send(order)).delivered == 1
    (entry,) = await stand.journal()
    (row,) = await stand.events(order)
    assert (entry["identifier"], entry["timestamp"]) == (row.identifier, used_at)


async def test_after_a_look_up_the_idempotency_key_is_another(ledger: Ledger) -> None:
    async with metering_stand(ledger, "events") as stand:
        await stand.customer()
        order = await _lost(stand, "reset")
        stand.stripe.clock.advance(hours=25)
        await stand.send(order)
        (entry,) = await stand.journal()
        assert entry["idempotency_key"] == f"{entry['identifier']}#1"


async def test_acknowledged_events_of_the_same_minute_are_told_apart(stand: MeteringStand) -> None:
    await stand.customer()
    await stand.send(await stand.use(values=[(INPUT, 100)]))
    lost, counted = await _lost(stand, "reset"), await stand.use(values=[(INPUT, 30)])
    await stand.send(counted)
    stand.stripe.clock.advance(hours=25)
    await stand.send(lost)
    assert await stand.counted() == {INPUT: 135}


async def test_an_outcome_that_cannot_be_told_is_parked_and_nothing_is_sent(
    stand: MeteringStand,
) -> None:
    await stand.customer()
    some, other = await _lost(stand, "no_answer"), await _lost(stand, "reset")
    stand.stripe.clock.advance(hours=25)  # two events of 5, and 5 have counted: whose?
    for order in (some, other):
        with pytest.raises(ApplicationError) as caught:
            await stand.send(order)
        assert (caught.value.type, caught.value.non_retryable) == ("MeterOutcomeUnknown", True)
        (row,) = await stand.events(order)
        assert "Stripe counted 5" in row.parked_reason
    assert len(await stand.journal()) == 1


async def test_summaries_that_lag_lead_to_no_second_count(stand: MeteringStand) -> None:
    await stand.customer()
    order = await _lost(stand, "no_answer")
    stand.stripe.clock.advance(hours=23)
    stand.stripe.account.summary_lag = 30 * 3600
    assert (await stand.send(order)).delivered == 1
    assert await stand.counted() == {INPUT: 5}


async def test_usage_older_than_the_window_is_parked_unsent(stand: MeteringStand) -> None:
    await stand.customer()
    order = await stand.use(values=[(INPUT, 5)], at=ago(stand, days=34, hours=1))
    with pytest.raises(ApplicationError) as caught:
        await stand.send(order)
    assert (caught.value.type, caught.value.non_retryable) == ("MeterWindowPassed", True)
    (row,) = await stand.events(order)
    assert "becomes an invoice item" in row.parked_reason
    assert row.first_sent_at is None
    assert await stand.journal() == []


async def test_usage_just_inside_the_window_keeps_its_instant(stand: MeteringStand) -> None:
    await stand.customer()
    used_at = ago(stand, days=33, hours=23)
    order = await _lost(stand, "reset", at=used_at)
    stand.stripe.clock.advance(hours=22)
    await stand.send(order)
    (entry,) = await stand.journal()
    assert entry["timestamp"] == int(used_at.timestamp())


async def test_an_outage_past_the_window_ends_in_a_parked_event(stand: MeteringStand) -> None:
    await stand.customer()
    order = await _lost(stand, "reset")
    stand.stripe.clock.advance(days=36)
    with pytest.raises(ApplicationError) as caught:
        await stand.send(order)
    assert caught.value.type == "MeterWindowPassed"
    assert await stand.journal() == []


async def test_a_look_up_that_fails_is_tried_again(stand: MeteringStand) -> None:
    await stand.customer()
    order = await _lost(stand, "reset")
    stand.stripe.clock.advance(hours=25)
    await stand.stripe.fault("rate_limited", match="event_summaries")
    with pytest.raises(ApplicationError) as caught:
        await stand.send(order)
    assert caught.value.type == "StripeRateLimited"
    await stand.send(order)
    assert await stand.counted() == {INPUT: 5}
