"""The repair `resend`: an event that Stripe has acknowledged and does not count is sent again.

Subjects are identifiers of events in the outbox; there are no facts, the outbox has them.

Sent again under the same identifier, whatever becomes of the answer: for a day Stripe counts it
once, and after that the look at its minute says whether it counts. An answer of "duplicate" says
that Stripe knows the identifier; since the summaries say that it does not count it, sending it
once more would be in vain, and the repair is refused. What is left is the event's next identifier
(`tallystick.metering.repairs`), under which Stripe would count it twice if the first came up after
all: for a person to decide, once Stripe had its time. The event is then renamed in the outbox and
goes the way of all others.
"""

from datetime import timedelta

from activities.metering import MeteringActivities
from activities.repair_calls import RepairCalls
from activities.repair_enqueuing import delivered
from activities.repair_minutes import MeterMinute, trouble_adding
from activities.repairing import Case, Done, Later, Outcome, Ready, Refused
from activities.stripe_meters import OutgoingEvent
from tallystick.contracts import RequestKey
from tallystick.ledger import outbox
from tallystick.ledger.collection_corrections import MeteredPeriod, metered_period
from tallystick.ledger.database import Ledger, Transaction
from tallystick.ledger.reconciliation_tables import Repair
from tallystick.ledger.tables import MeterEvent
from tallystick.metering import CHARGE_METER, SENT_FOR, TAKEN_FOR, repair_key, repairs
from tallystick.reconciling.findings import RepairKind


class Resend:
    """Sends events of `ledger` again by `calls`, renamed ones by `metering`.

    Stripe is given `settles` before it is sure not to count what it was sent.
    """

    def __init__(
        self, ledger: Ledger, calls: RepairCalls, metering: MeteringActivities, settles: timedelta
    ):
        self._ledger = ledger
        self._calls = calls
        self._metering = metering
        self._settles = settles

    def name(self, case: Case) -> str:
        """Return the identifier to send: the subject, or for a person the first not tried yet."""
        if case.by != "operator":
            return case.subject
        ended = {each.subject for each in _tried(case)}
        names = repairs(case.subject)
        rest = (each for each in names[names.index(case.subject) :] if each not in ended)
        return next(rest, case.subject)

    async def look(self, case: Case) -> Ready | Outcome:
        """Tell whether Stripe does not count it, and still could."""
        name = self.name(case)
        async with self._ledger.begin() as tx:
            event = await outbox.find(tx, name)
            final = await _final(tx, event)
        if event is None or event.withdrawn_at is not None:
            return Refused("it is not in the outbox, or a statement collects it instead")
        if case.now - event.occurred_at >= SENT_FOR:
            return Refused(f"Stripe takes no usage older than {TAKEN_FOR.days} days")
        if final is not None:
            return Refused(
                f"the invoice of period {final.ordinal} is final and collects nothing more; what "
                "it lacks is collected by the next statement"
            )
        if event.delivered_at is None:
            return Ready(f"{_said(event)} waits in the outbox, and is delivered")
        return await self._again(case, event, name)

    async def _again(self, case: Case, event: MeterEvent, name: str) -> Ready | Outcome:
        """Tell whether what Stripe has acknowledged is to be sent again."""
        assert event.stripe_customer_id is not None  # noqa: S101 - it was sent
        minute = MeterMinute(event.stripe_customer_id, event.meter, event.occurred_at)
        trouble = await trouble_adding(self._ledger, self._calls, minute, event.value)
        if trouble is not None:
            return trouble
        if event.identifier == name:
            return Ready(f"{_said(event)} is sent again as {name}")
        last = max((each.done_at for each in _tried(case) if each.done_at), default=case.now)
        if case.now < last + self._settles:
            until = (last + self._settles).isoformat()
            return Later(f"Stripe is given until {until} to count {event.identifier}")
        return Ready(
            f"{_said(event)} is sent as {name}, since Stripe does not count {event.identifier}"
        )

    async def act(self, case: Case, begun: Repair) -> Outcome:
        """Send it, renamed if need be."""
        name = begun.subject
        async with self._ledger.begin() as tx:
            event = await outbox.find(tx, name)
            assert event is not None  # noqa: S101 - events are never removed
            if event.identifier != name:
                why = f"Stripe acknowledged {event.identifier} and does not count it"
                await outbox.rename(tx, event.identifier, why, case.now)
                event = await outbox.find(tx, name)
        assert event is not None  # noqa: S101 - see above
        if event.delivered_at is None or event.stripe_customer_id is None:
            key = RequestKey(customer_id=event.customer_id, request_id=event.request_id)
            return await delivered(self._metering, key, f"as {event.identifier}")
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
                    f"Stripe knows {name} already and does not count it; a person can have it sent "
                    "under its next identifier by applying this again"
                )
            case _:
                return answer


async def _final(tx: Transaction, event: MeterEvent | None) -> MeteredPeriod | None:
    """Return the period whose final invoice should have collected the event, if it is such."""
    if event is None or event.meter != CHARGE_METER:
        return None
    return await metered_period(tx, event.customer_id, event.occurred_at)


def _tried(case: Case) -> list[Repair]:
    return [
        each for each in case.tried if each.repair == RepairKind.RESEND and each.outcome is not None
    ]


def _said(event: MeterEvent) -> str:
    return f"{event.value:,} on {event.meter}"
