"""Batch jobs in a house of their own: submit them, let them run, and look at what they left."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import inspect, select
from sqlmodel import SQLModel
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowHandle

from tallystick.contracts import (
    CANCEL_UPDATE,
    MESSAGE_BATCH,
    TASK_QUEUE,
    BatchOrder,
    BatchProgress,
    batch_workflow_id,
)
from tallystick.ledger import batches
from tallystick.ledger.batches import ItemResult, NewJob
from tallystick.ledger.database import Ledger
from tallystick.plans.batching import NewItem, new_item
from tallystick.plans.guards import Limits
from tests.support.house import House, open_house

LIMITS = Limits(100_000, Decimal(10))
MODELS = ("claude-sonnet-5-5", "claude-haiku-4-5")
QUICK = {"batch_poll": 0.2, "batch_looked_for": 1.5}
"""Waits as short as a test wants them."""
PATIENCE = 120


def params_of(number: int, job_id: str) -> dict[str, Any]:
    """Return a body of its own for each item: short ones, a third of them with a cached chapter."""
    system: list[dict[str, Any]] = []
    if number % 3 == 0:
        text = f"Chapter {number % 2}. " + "Of tallies and of their uses. " * 200
        system = [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]
    return {
        "model": MODELS[number % len(MODELS)],
        "max_tokens": 64,
        "system": system,
        "messages": [{"role": "user", "content": f"<{job_id}:{number}> What is a tally?"}],
    }


def items_of(job_id: str, count: int) -> Iterable[NewItem]:
    """Make the items of a job, the same each time."""
    at = datetime.now(UTC)
    for number in range(count):
        yield new_item(
            params_of(number, job_id),
            request_id=f"{job_id}/{number}",
            document=f"page-{number}.txt",
            limits=LIMITS,
            at=at,
        )


async def streamed(items: Iterable[NewItem]) -> AsyncIterator[NewItem]:
    for item in items:
        yield item


async def submit(ledger: Ledger, new: NewJob, items: Iterable[NewItem]) -> None:
    async with ledger.begin() as tx:
        await batches.submit(tx, new, streamed(items))


class Jobs:
    """The jobs of a house."""

    def __init__(self, house: House):
        self.house = house

    async def start(self, job_id: str, count: int, **terms: Any) -> WorkflowHandle[Any, Any]:
        """Submit a job of so many items and start its workflow."""
        await self.submit(job_id, count, **terms)
        return await self.run(job_id)

    async def submit(self, job_id: str, count: int, **terms: Any) -> None:
        new = NewJob(job_id, self.house.customer, **terms)
        await submit(self.house.ledger, new, items_of(job_id, count))

    async def run(self, job_id: str) -> WorkflowHandle[Any, Any]:
        return await start(self.house.temporal, job_id)

    async def ended(self, job_id: str) -> BatchProgress:
        """Wait until the job has ended and is metered; returns how."""
        handle = handle_of(self.house.temporal, job_id)
        return await asyncio.wait_for(handle.result(), PATIENCE)

    async def cancel(self, job_id: str) -> BatchProgress:
        handle = handle_of(self.house.temporal, job_id)
        return await handle.execute_update(CANCEL_UPDATE, result_type=BatchProgress)

    async def state(self, job_id: str) -> str | None:
        """Return the `BillingState` that the job shows."""
        attributes = (await handle_of(self.house.temporal, job_id).describe()).search_attributes
        return next(iter(attributes.get("BillingState", [])), None)  # type: ignore[return-value]

    async def reaches(self, job_id: str, state: str) -> bool:
        """Wait until the job shows this `BillingState`."""
        async with asyncio.timeout(PATIENCE):
            while await self.state(job_id) != state:
                await asyncio.sleep(0.1)
        return True

    async def progress(self, job_id: str) -> BatchProgress:
        async with self.house.ledger.begin() as tx:
            return await batches.progress(tx, job_id, datetime.now(UTC))

    async def results(self, job_id: str) -> list[ItemResult]:
        async with self.house.ledger.begin() as tx:
            return [each async for each in batches.results(tx, job_id)]

    async def rows(self, table: type[SQLModel], **equal: Any) -> list[Mapping[str, Any]]:
        """Return the rows of a table, by key, in which these columns have these values."""
        async with self.house.ledger.begin() as tx:
            found = await tx.execute(select(table).order_by(*inspect(table).primary_key))
            rows = [dict(row._mapping) for row in found]
        return [row for row in rows if all(row[name] == value for name, value in equal.items())]

    async def pace(self, **changes: Any) -> None:
        """Set how batches get on at the stand-in."""
        control = self.house.claude
        await control.post("batches", {**await control.get("batches"), **changes})


def handle_of(temporal: TemporalClient, job_id: str) -> WorkflowHandle[Any, Any]:
    return temporal.get_workflow_handle(batch_workflow_id(job_id), result_type=BatchProgress)


async def start(temporal: TemporalClient, job_id: str) -> WorkflowHandle[Any, Any]:
    return await temporal.start_workflow(
        MESSAGE_BATCH,
        BatchOrder(job_id=job_id),
        id=batch_workflow_id(job_id),
        task_queue=TASK_QUEUE,
        result_type=BatchProgress,
    )


def message_of(result: ItemResult) -> dict[str, Any]:
    """Return the reply of an item that succeeded."""
    assert result.line is not None
    return json.loads(result.line)["result"]["message"]


@asynccontextmanager
async def open_jobs(
    temporal: TemporalClient, database_url: str, name: str = "acme", **changes: Any
) -> AsyncIterator[Jobs]:
    """Open a house in which nobody waits long."""
    async with open_house(temporal, database_url, name, **{**QUICK, **changes}) as house:
        yield Jobs(house)
