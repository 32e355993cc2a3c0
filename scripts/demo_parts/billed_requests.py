"""The first act: requests for five customers, answered, billed and metered while things break."""

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from activities.stripe_catalog import create_customer
from activities.stripe_summaries import MeterSummaries
from tallystick.errors import TallystickError
from tallystick.ledger import customers
from tallystick.ledger.tables import Customer

from . import faults, sides
from .asks import CUSTOMERS, Ask, asks, customer_id
from .documents import Document
from .show import Bars, bars, err
from .sides import Record
from .stage import Stage
from .tally import Lost, Tally

IN_FLIGHT = 8
"""Requests that the application has open at a time."""
STALLED = 180.0
"""Seconds without any progress after which a run is taken as it is: something is wrong."""
SUMMARY_PATIENCE = 120.0
"""Seconds for Stripe's summaries to show what Stripe has acknowledged."""
_LOOK_EVERY = 0.4


@dataclass(frozen=True, slots=True)
class Result:
    """The tally, which faults struck on the way to it, and the usage records behind it."""

    tally: Tally
    applied: faults.Applied
    records: Sequence[Record]
    seconds: float


async def run(stage: Stage, count: int, documents: Sequence[Document]) -> Result:
    """Send `count` requests, wait until all of it is metered, and lay the records together.

    Raises:
        TallystickError: when the worker ends by itself.
    """
    name = f"demo-{uuid.uuid4().hex[:8]}"
    began = datetime.now(UTC)
    stripe_ids = await _add_customers(stage, name)
    await faults.arm(stage.stand_ins)
    answered: list[str] = []
    sending = asyncio.create_task(_send(stage, asks(name, count, documents), answered))
    try:
        with bars(count) as drawn:
            records = await _until_metered(stage, sending, answered, drawn)
    finally:
        sending.cancel()
    applied = await faults.disarm(stage.stand_ins)
    seconds = (datetime.now(UTC) - began).total_seconds()
    tally = await _lay_together(
        stage,
        requests=count,
        answered=len(answered),
        records=records,
        stripe_ids=stripe_ids,
        began=began,
    )
    return Result(tally, applied, records, seconds)


async def _add_customers(stage: Stage, run: str) -> Mapping[str, str]:
    """Add the customers here and in Stripe; returns our id to Stripe's."""
    stripe_ids: dict[str, str] = {}
    for name, plan in CUSTOMERS.items():
        ours = customer_id(name, run)
        stripe_ids[ours] = await create_customer(stage.stripe, ours, name.capitalize())
        row = Customer(
            customer_id=ours,
            name=name.capitalize(),
            plan=plan,
            stripe_customer_id=stripe_ids[ours],
        )
        async with stage.ledger.begin() as tx:
            await customers.add(tx, row)
    return stripe_ids


async def _send(stage: Stage, requests: Sequence[Ask], answered: list[str]) -> None:
    """Ask as an application would, some at a time; the ids of answers go to `answered`."""
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def send(ask: Ask) -> None:
        async with slots:
            try:
                reply = await stage.client.messages.create(
                    customer_id=ask.customer_id,
                    request_id=ask.request_id,
                    **ask.params,
                )
            except TallystickError as error:
                err.print(f"{ask.request_id}: {error}", markup=False)
            else:
                answered.append(reply.request_id)

    await asyncio.gather(*(send(ask) for ask in requests))


async def _until_metered(
    stage: Stage, sending: asyncio.Task[None], answered: Sequence[str], drawn: Bars
) -> Sequence[Record]:
    """Watch the ledger until all that was sent is metered, or nothing moves any more."""
    clock = asyncio.get_running_loop().time
    seen, moved_at = (0, 0, 0), clock()
    while True:
        stage.check_worker()
        sent = sending.done()
        records = await sides.usage_records(stage.ledger)
        metered, billed = _progress(records)
        drawn.show(
            answered=len(answered),
            billed=billed,
            refused=len(records) - billed,
            metered=metered,
        )
        if sent and metered == billed:
            await sending
            return records
        if seen != (len(answered), billed, metered):
            seen, moved_at = (len(answered), billed, metered), clock()
        elif clock() - moved_at > STALLED:
            err.print(f"nothing has moved for {STALLED:.0f} seconds")
            return records
        await asyncio.sleep(_LOOK_EVERY)


def _progress(records: Sequence[Record]) -> tuple[int, int]:
    """Return how many records are metered, and how many have something to meter."""
    billed = [record for record in records if record["status"] != "not_billed"]
    return sum(map(sides.is_metered, billed)), len(billed)


async def _lay_together(
    stage: Stage,
    *,
    requests: int,
    answered: int,
    records: Sequence[Record],
    stripe_ids: Mapping[str, str],
    began: datetime,
) -> Tally:
    unknown = await sides.unknown_outcomes(stage.ledger)
    if "claude" in stage.stand_ins:
        journal = await stage.stand_ins["claude"].journal()
        claude, lost = sides.claude_figures(journal, records, unknown)
    else:
        claude, lost = sides.figures_of_replies(records), Lost(unknown)
    ledger = sides.ledger_figures(records)
    metered, billed = _progress(records)
    return Tally(
        requests=requests,
        answered=answered,
        billed=billed,
        refused=len(records) - billed,
        metered=metered,
        claude=claude,
        ledger=ledger,
        stripe=await sides.settled_stripe_figures(
            MeterSummaries(stage.stripe), stripe_ids, began, ledger, patience=SUMMARY_PATIENCE
        ),
        lost=lost,
    )
