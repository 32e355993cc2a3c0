"""The repair `cancel_event`: Stripe cancels an event that it counts twice, or for another customer.

Subjects are identifiers of events in the outbox. Facts: `stripe_customer_id`, for whom Stripe
counts it too much.

Stripe cancels what it has received within 24 hours, by identifier alone, and each cancellation may
take away another copy. So it is asked under the key of the repair's row: repeated after a crash,
Stripe gives the first answer again. After that window the look at the minute says whether the first
one took effect.
"""

from activities.repair_calls import RepairCalls
from activities.repair_minutes import MeterMinute, trouble_adding
from activities.repairing import Case, Done, Outcome, Ready, Refused
from tallystick.ledger import outbox
from tallystick.ledger.database import Ledger
from tallystick.ledger.reconciliation_tables import Repair
from tallystick.metering import CANCELLED_FOR, repair_key


class CancelEvent:
    """Has events of `ledger` cancelled by `calls`."""

    def __init__(self, ledger: Ledger, calls: RepairCalls):
        self._ledger = ledger
        self._calls = calls

    async def look(self, case: Case) -> Ready | Outcome:
        """Tell whether Stripe counts it too much, and still would cancel it."""
        async with self._ledger.begin() as tx:
            event = await outbox.find(tx, case.subject)
        if event is None or event.identifier != case.subject or event.first_sent_at is None:
            return Refused("the outbox has sent no event of that identifier")
        whose = case.facts["stripe_customer_id"]
        minute = MeterMinute(whose, event.meter, event.occurred_at)
        trouble = await trouble_adding(self._ledger, self._calls, minute, -event.value)
        if trouble is not None:
            return trouble
        if case.now - event.first_sent_at >= CANCELLED_FOR:
            return Refused(
                "Stripe cancels an event within 24 hours of its receipt; an event of opposite sign "
                "still can correct it"
            )
        return Ready(f"Stripe cancels {event.value:,} on {event.meter}")

    async def act(self, case: Case, begun: Repair) -> Outcome:
        """Have it cancelled."""
        async with self._ledger.begin() as tx:
            event = await outbox.find(tx, case.subject)
        assert event is not None  # noqa: S101 - events are never removed
        key = repair_key(case.subject, begun.repair_id or 0)
        refused = await self._calls.cancel(case.subject, event.meter, key)
        return refused or Done(f"Stripe has cancelled {event.value:,} on {event.meter}")
