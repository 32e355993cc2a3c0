"""The last act: Stripe loses an event it has acknowledged; the nightly reconciliation mends it.

One more request is billed and metered; its charge is acknowledged by the Stripe stand-in and then
forgotten, with no word about it. Then the day is reconciled as the schedule does it every night:
Claude's usage and cost reports, the ledger, its meter events and Stripe's sums. A day has to be
over before it is compared, so the clocks of that run and of the stand-ins are moved on by one; by
then Stripe has forgotten the event's identifier, and its sums decide that it may be sent again.

What else the faults of the first act have left comes out too: calls that were served and answered
nobody are found in Claude's report, and booked as our own cost.
"""

import asyncio
import uuid
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.testing import TimeSkipper, TimeSkippingConfig

from activities.stripe_catalog import create_customer
from tallystick.cli.reconcile_show import read
from tallystick.contracts import (
    RECONCILIATION,
    TASK_QUEUE,
    ReconcileOrder,
    ReconcileResult,
    reconciliation_workflow_id,
)
from tallystick.errors import TallystickError
from tallystick.ledger import customers
from tallystick.ledger.tables import Customer
from tallystick.metering import CHARGE_METER, meter_identifier
from tallystick.reconciling.findings import Cause
from tallystick.reconciling.intervals import DAY, Interval
from tallystick.tally_report.page import Seen

from . import faults
from .closed_periods import until_metered
from .show import err
from .stage import Stage

PLAN = "pass-through"
MODEL = "claude-opus-5-5"
AFTER_THE_DAY = timedelta(hours=2, minutes=30)
"""When the run begins at the earliest, as its schedule has it."""
FORGOTTEN = timedelta(hours=25)
"""After this Stripe knows no identifier any more."""
_PATIENCE = 180.0


@dataclass(frozen=True, slots=True)
class Mended:
    """What the reconciliation found, and what it came to."""

    result: ReconcileResult
    seen: Seen

    @property
    def agrees(self) -> bool:
        """Whether the lost event was found and mended, and nothing else is left to be."""
        lost = [each.state for each in self.seen.discrepancies if each.cause == Cause.LOST_EVENT]
        return lost == ["settled"] and not self.result.over_tolerance and not self.result.failed

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        causes = Counter(f"{each.cause}, {each.state}" for each in self.seen.discrepancies)
        repairs = [repair for several in self.seen.repairs.values() for repair in several]
        return {
            "from": self.result.start.isoformat(),
            "to": self.result.end.isoformat(),
            "differences": dict(causes),
            "repairs": dict(Counter(f"{each.repair}, {each.outcome}" for each in repairs)),
            "agrees": self.agrees,
        }


async def run(stage: Stage, began: datetime) -> Mended:
    """Have one event lost, and reconcile all hours since `began`; returns what it came to.

    Raises:
        TallystickError: the worker ends by itself, or the run does not come to an end.
    """
    err.print("Stripe acknowledges one more charge and forgets it; the day is over and reconciled")
    await _lose_one(stage)
    day = Interval(_midnight(began), _midnight(datetime.now(UTC)) + DAY)
    result = await _reconcile(stage, day)
    async with stage.ledger.begin() as tx:
        return Mended(result, await read(tx, *day))


def _midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


async def _lose_one(stage: Stage) -> None:
    """Bill a request whose charge Stripe acknowledges and never counts."""
    customer = f"rowan-{uuid.uuid4().hex[:8]}"
    stripe_id = await create_customer(stage.stripe, customer, "Rowan")
    async with stage.ledger.begin() as tx:
        row = Customer(customer_id=customer, name="Rowan", plan=PLAN, stripe_customer_id=stripe_id)
        await customers.add(tx, row)
    identifier = meter_identifier(customer, "forgotten", CHARGE_METER)
    losing = {
        "fault": "lost_event",
        "options": {"identifier": identifier},
        "match": identifier,
        "times": None,  # the first call may be turned away: its token is of a month ago
    }
    await stage.stand_ins["stripe"].post("faults", {"rules": [losing]})
    await stage.client.messages.create(
        customer_id=customer,
        request_id="forgotten",
        model=MODEL,
        max_tokens=400,
        messages=[{"role": "user", "content": "What became of the Exchequer's tally sticks?"}],
    )
    await until_metered(stage, [customer])
    await faults.disarm(stage.stand_ins)


async def _reconcile(stage: Stage, day: Interval) -> ReconcileResult:
    """Run the reconciliation in the night after, in its own time."""
    now = datetime.now(UTC)
    at = max(day.end + AFTER_THE_DAY, now + FORGOTTEN)
    await stage.stand_ins["claude"].post("clock", {"now": at.timestamp()})
    # A month has passed for Stripe since the periods were closed.
    await stage.stand_ins["stripe"].post("clock", {"advance": (at - now).total_seconds()})
    run = await stage.temporal.start_workflow(
        RECONCILIATION,
        ReconcileOrder(kind="daily", start=day.start, end=day.end),
        id=reconciliation_workflow_id(*day),
        task_queue=TASK_QUEUE,
        start_delay=at - now,
        result_type=ReconcileResult,
    )
    by_id = stage.temporal.get_workflow_handle(run.id)
    await TimeSkipper(stage.temporal, config=TimeSkippingConfig(enabled=False)).fast_forward(
        by_id, at - now
    )
    try:
        return await asyncio.wait_for(run.result(), _PATIENCE)
    except TimeoutError:
        stage.check_worker()
        raise TallystickError("the reconciliation did not come to an end") from None
