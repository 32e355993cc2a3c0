"""The repair `resend`: an event that Stripe has acknowledged and does not count is sent again.

Subjects are identifiers of events in the outbox; there are no facts, the outbox has them.

Sent again under the same identifier, whatever becomes of the answer: for a day Stripe counts it
once, and after that the look at its minute says whether it counts. An answer of "duplicate" says
that Stripe knows the identifier; since the summaries say that it does not count it, sending it
once more would be in vain, and the repair is refused. The next comparison then proposes the event's
next identifier (`tallystick.metering.repairs`), under which Stripe would count it twice if the
first came up after all: that is for a person to decide. The event is renamed in the outbox and goes
the way of all others.
"""

from activities.metering import MeteringActivities
from activities.repair_calls import RepairCalls
from activities.repair_enqueuing import delivered
from activities.repair_minutes import MeterMinute, trouble_adding
from activities.repairing import Case, Done, Outcome, Ready, Refused
from activities.stripe_meters import OutgoingEvent
from tallystick.contracts import RequestKey
from tallystick.ledger import outbox
from tallystick.ledger.collection_corrections import MeteredPeriod, metered_period
from tallystick.ledger.database import Ledger, Transaction
from tallystick.ledger.reconciliation_tables import Repair
from tallystick.ledger.tables import MeterEvent
from tallystick.metering import CHARGE_METER, SENT_FOR, TAKEN_FOR, repair_key, repairs


class Resend:
    """Sends events of `ledger` again by `calls`, renamed ones by `metering`."""

    def __init__(self, ledger: Ledger, calls: RepairCalls, metering: MeteringActivities):
        self._ledger = ledger
        self._calls = calls
        self._metering = metering

    async def look(self, case: Case) -> Ready | Outcome:
        """Tell whether Stripe does not count it, and still could."""
        async with self._ledger.begin() as tx:
            event = await outbox.find(tx, case.subject)
            final = await _final(tx, event)
        if event is None or event.withdrawn_at is not None:
            return Refused("it is not in the outbox, or a statement collects it instead")
        if event.identifier not in (case.subject, _before(case.subject)):
            return Refused(f"by now it is {event.identifier} in the outbox")
        if case.now - event.occurred_at >= SENT_FOR:
            return Refused(f"Stripe takes no usage older than {TAKEN_FOR.days} days")
        if final is not None:
            return Refused(
                f"the invoice of period {final.ordinal} is final and collects nothing more; what "
                "it lacks is collected by the next statement"
            )
        if event.delivered_at is None:
            return Ready(f"{_said(event)} waits in the outbox, and is delivered")
        assert event.stripe_customer_id is not None  # noqa: S101 - it was sent
        minute = MeterMinute(event.stripe_customer_id, event.meter, event.occurred_at)
        trouble = await trouble_adding(self._ledger, self._calls, minute, event.value)
        return trouble or Ready(f"{_said(event)} is sent again as {case.subject}")

    async def act(self, case: Case, begun: Repair) -> Outcome:
        """Send it, renamed if need be."""
        name = begun.subject
        async with self._ledger.begin() as tx:
            if (known_as := _before(name)) is not None:
                why = f"Stripe acknowledged {known_as} and does not count it"
                await outbox.rename(tx, known_as, why, case.now)
            event = await outbox.find(tx, name)
        assert event is not None  # noqa: S101 - events are never removed
        if event.delivered_at is None or event.stripe_customer_id is None:
            key = RequestKey(customer_id=event.customer_id, request_id=event.request_id)
            return await delivered(self._metering, key, f"sent as {name}")
        if event.first_sent_at is not None and event.first_sent_at >= begun.begun_at:
            return Done(f"{_said(event)} was sent as {name}")
        answer = await self._calls.send(
            OutgoingEvent(
                identifier=name,
                meter=event.meter,
                stripe_customer_id=event.stripe_customer_id,
                value=event.value,
                occurred_at=event.occurred_at,
                idempotency_key=repair_key(name, begun.repair_id or 0),
            )
        )
        match answer:
            case "taken":
                return Done(f"{_said(event)} was sent again as {name}, and Stripe took it")
            case "known":
                return Refused(
                    f"Stripe knows {name} already, and its sums do not count it; what is left is "
                    "to send it under its next identifier"
                )
            case _:
                return answer


async def _final(tx: Transaction, event: MeterEvent | None) -> MeteredPeriod | None:
    """Return the period whose final invoice should have collected the event, if it is such."""
    if event is None or event.meter != CHARGE_METER:
        return None
    return await metered_period(tx, event.customer_id, event.occurred_at)


def _before(identifier: str) -> str | None:
    """Return the identifier that an event had before this one."""
    names = repairs(identifier)
    at = names.index(identifier)
    return names[at - 1] if at else None


def _said(event: MeterEvent) -> str:
    return f"{event.value:,} on {event.meter}"
