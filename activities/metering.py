"""`send_meter_events`: delivers what a request left in the outbox, in calls shared with others.

The order of steps is what makes a crash harmless. `first_sent_at` is committed before the first
send, so that whoever comes next knows how long Stripe may have known the identifier; the events
go out under identifiers that are a function of the usage; `delivered_at` is committed after the
acknowledgement and before the activity completes. A crash between any two steps leads to a resend
that Stripe counts once, or past its memory to a look at the summaries (`meter_windows`).

Events fail one by one: an activity raises for its own and completes with its own. What Temporal
may retry is raised before what a person must mend, so that a parked event does not hold up those
beside it.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby

import stripe
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.coalescing import Coalescer
from activities.failures import failure
from activities.heartbeats import heartbeating
from activities.meter_windows import Step, first_step, idempotency_key, step_after_look_up
from activities.stripe_clients import Refusal, refusal
from activities.stripe_meters import STREAM_LIMIT, MeterTransport, OutgoingEvent
from activities.stripe_summaries import InexactSumError, UnknownMeterError
from tallystick.contracts import MeterOrder, MeterReceipt
from tallystick.errors import (
    LEDGER_UNAVAILABLE,
    METER_OUTCOME_UNKNOWN,
    STRIPE_REJECTED,
    Action,
)
from tallystick.ledger import outbox
from tallystick.ledger.database import Ledger, LedgerUnavailableError
from tallystick.ledger.outbox import PendingEvent

_MINUTE = timedelta(minutes=1)

_Steps = Mapping[int, Step | Refusal]
"""By meter event id."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class MeteringActivities:
    """Tells Stripe what the ledger charged.

    Args:
        ledger: whose outbox is delivered.
        transport: the way to Stripe.
        linger: seconds that events wait for company before a call that is not full goes out.
        clock: tells the present; Stripe's windows are judged by it.
    """

    def __init__(
        self,
        ledger: Ledger,
        transport: MeterTransport,
        *,
        linger: float,
        clock: Callable[[], datetime] = _utc_now,
    ):
        self._ledger = ledger
        self._transport = transport
        self._clock = clock
        self._calls = Coalescer[MeterOrder, MeterReceipt](
            self._deliver, full=STREAM_LIMIT, linger=linger
        )

    @activity.defn
    async def send_meter_events(self, order: MeterOrder) -> MeterReceipt:
        """Return when Stripe has acknowledged every event of the request.

        Raises:
            ApplicationError: a row of the error table; retryable ones first.
        """
        async with heartbeating():
            return await self.deliver(order)

    async def deliver(self, order: MeterOrder) -> MeterReceipt:
        """Do what the activity does, for callers that are part of another step or of none.

        Raises:
            ApplicationError: as `send_meter_events` does.
        """
        return await self._calls.submit(order, order.events)

    async def drain(self) -> None:
        """Finish the calls that have begun; for a worker that stops."""
        await self._calls.drain()

    async def _deliver(
        self, orders: Sequence[MeterOrder]
    ) -> Sequence[MeterReceipt | ApplicationError]:
        try:
            async with self._ledger.begin() as tx:
                events = await outbox.pending(tx, [order.key for order in orders])
            steps = await self._steps(events)
            steps = await self._send(events, steps)
            at = await self._note(steps)
        except LedgerUnavailableError as error:
            told = f"the ledger is away: {error}"
            return [failure(LEDGER_UNAVAILABLE, told) for _ in orders]
        return [
            _outcome(order, [steps[e.meter_event_id] for e in events if e.key == order.key], at)
            for order in orders
        ]

    async def _steps(self, events: Sequence[PendingEvent]) -> _Steps:
        """Decide for each event: send it, it is delivered already, or why neither."""
        now = self._clock()
        steps = {event.meter_event_id: first_step(event, now) for event in events}
        doubtful = [event for event in events if steps[event.meter_event_id] is Step.LOOK_UP]
        for (customer, meter, minute), group in groupby(sorted(doubtful, key=_place), key=_place):
            steps |= await self._look_up(customer, meter, minute, list(group))
        return steps

    async def _look_up(
        self, stripe_customer_id: str, meter: str, minute: datetime, events: Sequence[PendingEvent]
    ) -> _Steps:
        end, now = minute + _MINUTE, self._clock()
        async with self._ledger.begin() as tx:
            known = await outbox.sums_in_window(
                tx, stripe_customer_id=stripe_customer_id, meter=meter, start=minute, end=end
            )
        try:
            counted = await self._transport.summaries.total(stripe_customer_id, meter, minute, end)
        except stripe.StripeError as error:
            return {event.meter_event_id: refusal(error) for event in events}
        except UnknownMeterError as error:
            return {event.meter_event_id: Refusal(STRIPE_REJECTED, str(error)) for event in events}
        except InexactSumError as error:
            unknown = Refusal(METER_OUTCOME_UNKNOWN, str(error))
            return {event.meter_event_id: unknown for event in events}
        return {
            event.meter_event_id: step_after_look_up(event, now, known=known, counted=counted)
            for event in events
        }

    async def _send(self, events: Sequence[PendingEvent], steps: _Steps) -> _Steps:
        """Send what is to be sent; every event is then delivered or refused."""
        now = self._clock()
        sending = [event for event in events if steps[event.meter_event_id] is Step.SEND]
        if not sending:
            return steps
        async with self._ledger.begin() as tx:
            ready = await outbox.mark_sending(tx, sending, now)
        outgoing = [event for event in sending if event.meter_event_id in ready]
        answers = await self._transport.send([_outgoing(event, now) for event in outgoing])
        return {
            **steps,
            **{event.meter_event_id: Step.WITHDRAWN for event in sending},
            **{
                event.meter_event_id: answer or Step.DELIVERED
                for event, answer in zip(outgoing, answers, strict=True)
            },
        }

    async def _note(self, steps: _Steps) -> datetime:
        """Commit what became of the events; returns the instant noted."""
        at = self._clock()
        delivered = [each for each, step in steps.items() if step is Step.DELIVERED]
        parked = {
            each: step.message
            for each, step in steps.items()
            if isinstance(step, Refusal) and step.row.action is Action.PARK
        }
        async with self._ledger.begin() as tx:
            if delivered:
                await outbox.mark_delivered(tx, delivered, at)
            for reason in sorted(set(parked.values())):
                ids = [each for each, why in parked.items() if why == reason]
                await outbox.park(tx, ids, reason, at)
        return at


def _place(event: PendingEvent) -> tuple[str, str, datetime]:
    """Return where Stripe sums the event up: customer, meter, minute."""
    assert event.stripe_customer_id is not None  # noqa: S101 - it has been sent before
    minute = event.occurred_at.replace(second=0, microsecond=0)
    return event.stripe_customer_id, event.meter, minute


def _outgoing(event: PendingEvent, now: datetime) -> OutgoingEvent:
    assert event.stripe_customer_id is not None  # noqa: S101 - or it would be parked
    return OutgoingEvent(
        identifier=event.identifier,
        meter=event.meter,
        stripe_customer_id=event.stripe_customer_id,
        value=event.value,
        occurred_at=event.occurred_at,
        idempotency_key=idempotency_key(event, now),
    )


def _outcome(
    order: MeterOrder, steps: Sequence[Step | Refusal], at: datetime
) -> MeterReceipt | ApplicationError:
    refused = [step for step in steps if isinstance(step, Refusal)]
    if not refused:
        return MeterReceipt(delivered=order.events, at=at)
    passing = [each for each in refused if each.row.action is Action.RETRY]
    first = (passing or refused)[0]
    waits = [each.retry_after for each in passing if each.retry_after is not None]
    return failure(
        first.row,
        f"{len(refused)} of {order.events} meter events are not delivered: {first.message}",
        retry_after=max(waits, default=None),
    )
