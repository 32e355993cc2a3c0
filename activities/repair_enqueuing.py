"""The repair `enqueue_events`: a meter event that a record should have left is put into the outbox.

Subjects are identifiers. Facts: `customer_id`, `request_id` (of a batch the chunk's), `meter`,
`value`, `occurred_at`, `billed_at`, and `usage_record_id` where it is the event of one record.

The identifier is a function of the fact, and unique in the outbox: what was put there before a
crash is found there. Whether its row was lost before or after Stripe was told of it, nobody knows.
So it is put there as if sent when it was used, and from then on goes the way of all others: within
a day `send_meter_events` sends it, which Stripe counts once, and later it first looks at the
summaries.
"""

from datetime import datetime

from temporalio.exceptions import ApplicationError

from activities.metering import MeteringActivities
from activities.repairing import Case, Done, Later, Outcome, Ready, Refused
from activities.stripe_clients import Refusal
from tallystick.contracts import MeterOrder, RequestKey
from tallystick.errors import FAILURES, Action
from tallystick.ledger import discrepancies, outbox
from tallystick.ledger.database import Ledger
from tallystick.ledger.reconciliation_tables import Repair
from tallystick.metering import meter_identifier


class EnqueueEvents:
    """Puts events into the outbox of `ledger` and has `metering` deliver them."""

    def __init__(self, ledger: Ledger, metering: MeteringActivities):
        self._ledger = ledger
        self._metering = metering

    async def look(self, case: Case) -> Ready | Outcome:
        """Tell whether it is still missing."""
        key, meter = _key(case), case.facts["meter"]
        if meter_identifier(key.customer_id, key.request_id, meter) != case.subject:
            return Refused(f"{case.subject} is not the event of {key.request_id!r} on {meter}")
        async with self._ledger.begin() as tx:
            event = await outbox.find(tx, case.subject)
        if event is not None and event.delivered_at is not None:
            return Done("it was delivered meanwhile")
        return Ready(
            f"an event of {int(case.facts['value']):,} on {meter} for request {key.request_id} is "
            "put into the outbox and delivered"
        )

    async def act(self, case: Case, begun: Repair) -> Outcome:
        """Put it there unless it is, and deliver it."""
        facts = case.facts
        async with self._ledger.begin() as tx:
            # Locked, so that of two who repair at once the second one finds the event.
            await discrepancies.get(tx, case.discrepancy_id, locked=True)
            if await outbox.find(tx, case.subject) is None:
                await outbox.enqueue(
                    tx,
                    usage_record_id=facts.get("usage_record_id"),
                    key=_key(case),
                    occurred_at=datetime.fromisoformat(facts["occurred_at"]),
                    billed_at=datetime.fromisoformat(facts["billed_at"]),
                    values=[(facts["meter"], int(facts["value"]))],
                )
                await outbox.suppose_sent(tx, case.subject)
        return await delivered(self._metering, _key(case), "put into the outbox")


def _key(case: Case) -> RequestKey:
    return RequestKey(customer_id=case.facts["customer_id"], request_id=case.facts["request_id"])


async def delivered(metering: MeteringActivities, key: RequestKey, so_far: str) -> Done | Later:
    """Deliver what the outbox holds of a request, and say what became of it.

    An event that is parked is where people look for such (`tallystick stuck`): the repair is done.
    """
    try:
        await metering.deliver(MeterOrder(key=key, events=1))
    except ApplicationError as error:
        row = FAILURES[error.type or ""]
        if row.action is Action.PARK:
            return Done(f"{so_far}; not delivered yet: {error.message}")
        wait = error.next_retry_delay
        refusal = Refusal(row, error.message, wait.total_seconds() if wait else None)
        return Later(f"{so_far}; not delivered yet: {error.message}", refusal)
    return Done(f"{so_far} and delivered")
