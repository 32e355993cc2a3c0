"""Delivering what waits in the outbox, for commands that have just put it there.

Each request is handed to Temporal as an activity of its own, under an id made from the request, so
that handing it over twice joins the first; a worker then delivers it whether or not the command is
still there. Timeouts and retries are those of the request workflow, since it is the same step.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from temporalio.client import ActivityFailureError, ActivityHandle, Client
from temporalio.common import (
    ActivityIDConflictPolicy,
    SearchAttributePair,
    TypedSearchAttributes,
)

from tallystick.contracts import TASK_QUEUE, MeterOrder, MeterReceipt
from tallystick.temporal import CUSTOMER_ID
from workflows.claude_request import METER_HEARTBEAT, METER_RETRIES, METER_TIMEOUT

AT_ONCE = 50
"""Calls to Temporal in flight."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of the orders: delivered, parked with the reasons, or still on their way."""

    delivered: int
    parked: tuple[str, ...]
    under_way: int


async def deliver(client: Client, orders: Sequence[MeterOrder], *, patience: float) -> Delivery:
    """Hand the orders to Temporal and wait `patience` seconds for what becomes of them.

    Raises:
        RPCError: when Temporal goes away; what was handed over is delivered all the same.
    """
    room = asyncio.Semaphore(AT_ONCE)

    async def hand_over(order: MeterOrder) -> ActivityHandle[MeterReceipt]:
        async with room:
            return await _start(client, order)

    handles = await asyncio.gather(*(hand_over(order) for order in orders))
    if not handles:
        return Delivery(0, (), 0)
    waiting = [asyncio.create_task(_outcome(handle)) for handle in handles]
    done, pending = await asyncio.wait(waiting, timeout=patience)
    for task in pending:
        task.cancel()
    outcomes = [task.result() for task in done]
    parked = tuple(why for why in outcomes if why is not None)
    return Delivery(len(outcomes) - len(parked), parked, len(pending))


async def _start(client: Client, order: MeterOrder) -> ActivityHandle[MeterReceipt]:
    key = order.key
    return await client.start_activity(
        "send_meter_events",
        order,
        id=f"meter-events/{key.customer_id}/{key.request_id}",
        task_queue=TASK_QUEUE,
        result_type=MeterReceipt,
        start_to_close_timeout=METER_TIMEOUT,
        heartbeat_timeout=METER_HEARTBEAT,
        retry_policy=METER_RETRIES,
        id_conflict_policy=ActivityIDConflictPolicy.USE_EXISTING,
        search_attributes=TypedSearchAttributes(
            [SearchAttributePair(CUSTOMER_ID, key.customer_id)]
        ),
        summary=f"usage of {key.customer_id} that was priced later",
    )


async def _outcome(handle: ActivityHandle[MeterReceipt]) -> str | None:
    """Return None when delivered, and why not when a person has to mend it."""
    try:
        await handle.result()
    except ActivityFailureError as error:
        return str(error.cause)
    return None
