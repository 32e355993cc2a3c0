"""One customer's flood and another's single question, on the real server with two calls at a time.

The order of service is read from the ledger: the instants at which calls to Claude began. The calls
in flight are held until the single one is queued behind the flood, so what is compared are places
in a queue and no seconds: a slow machine proves the same as a quick one.
"""

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import select
from sqlmodel import col
from temporalio.client import Client as TemporalClient
from temporalio.common import Priority
from temporalio.service import RPCError

from tallystick.client import BilledMessage
from tallystick.contracts import CLAUDE_REQUEST, TASK_QUEUE, request_workflow_id
from tallystick.ledger import customers
from tallystick.ledger.tables import Attempt, Customer
from tests.support.house import PATIENCE, House, open_house

AT_ONCE = 2
"""Calls to Claude at a time, as `TALLYSTICK_CLAUDE_CONCURRENCY` limits them here."""
OVERTAKING = 2 * AT_ONCE
"""Calls of the flood that may still begin before the single one: those that take the slots as they
become free, before the server has looked at what came last."""


@pytest.mark.parametrize(
    "flood", [300, pytest.param(10_000, marks=pytest.mark.long)], ids=["300", "10000"]
)
async def test_a_single_request_overtakes_another_customers_flood(
    temporal: TemporalClient, database_url: str, flood: int
) -> None:
    async with open_house(
        temporal, database_url, "noisy", claude_concurrency=AT_ONCE, max_input_tokens=1_000
    ) as house:
        async with house.ledger.begin() as tx:
            await customers.add(
                tx, Customer(customer_id="quiet", name="quiet", plan="pass-through")
            )
        # All of them, should one be given up and tried again: a busy machine misses heartbeats.
        held = await house.claude.hold(match="flood", times=None)
        await _pour(house, flood)
        await _begun(house, AT_ONCE)
        before = await _order_of_service(house)
        single = asyncio.create_task(house.ask("the-only-one", customer_id="quiet"))
        await _queued(house, "the-only-one", "quiet", single)
        await house.claude.release(held)
        await single
        order = await _order_of_service(house)

    print("order of service:", " ".join(order[: order.index("quiet") + 5]))
    place = order.index("quiet")
    print(f"asked after {len(before)} calls had begun, served as number {place + 1} of {flood + 1}")
    assert len(before) + OVERTAKING < flood, "the flood was over before the single request came"
    assert place <= len(before) + OVERTAKING


async def _pour(house: House, flood: int) -> None:
    """Start the flood without waiting for answers, so that all of it is queued."""
    waiting = asyncio.Semaphore(50)

    async def start(number: int) -> None:
        async with waiting:
            await house.temporal.start_workflow(
                CLAUDE_REQUEST,
                _request(f"flood-{number}"),
                id=request_workflow_id("noisy", f"flood-{number}"),
                task_queue=TASK_QUEUE,
                priority=Priority(fairness_key="noisy"),
            )

    await asyncio.gather(*(start(number) for number in range(flood)))


def _request(request_id: str) -> dict[str, Any]:
    return {
        "customer_id": "noisy",
        "request_id": request_id,
        "params": {
            "model": "claude-haiku-4-5",
            "max_tokens": 16,
            "messages": [{"role": "user", "content": request_id}],
        },
    }


async def _begun(house: House, calls: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while len(await _order_of_service(house)) < calls:
            await asyncio.sleep(0.05)


async def _queued(
    house: House, request_id: str, customer_id: str, asked: "asyncio.Task[BilledMessage]"
) -> None:
    """Wait until the request has its call in the queue, or has been through it or failed before."""
    handle = house.temporal.get_workflow_handle(request_workflow_id(customer_id, request_id))
    async with asyncio.timeout(PATIENCE):
        while not asked.done():
            with suppress(RPCError):  # not started yet
                pending = (await handle.describe()).raw_description.pending_activities
                if any(each.activity_type.name == "call_claude" for each in pending):
                    return
            await asyncio.sleep(0.05)


async def _order_of_service(house: House) -> list[str]:
    """Return whose calls have begun, in their order."""
    order = (col(Attempt.started_at), col(Attempt.attempt_id))
    async with house.ledger.begin() as tx:
        rows = await tx.execute(select(col(Attempt.customer_id)).order_by(*order))
        return [row.customer_id for row in rows]
