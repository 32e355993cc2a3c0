"""How far a batch job is: in one line, as a table, and as a bar that ends with the job.

The counts come from the ledger, so they are there whether or not a worker runs. That a job was
refused, or waits for a person, is told by its workflow alone: nothing of a refused job is in the
ledger but what was asked.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
)
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from tallystick.contracts import STUCK_QUERY, BatchProgress, BillingState, batch_workflow_id
from tallystick.pricing.explain import dollars
from tallystick.temporal import BILLING_STATE

_IN_MINUTES = 90
"""Up to so many minutes, what is left is told in minutes."""
_A_WORKER = timedelta(seconds=5)
"""How long some worker has to say why a step waits."""
LOOK_EVERY = 1.0
"""Seconds between looks; the ledger answers them, not the provider."""


async def follow(
    look: Callable[[], Awaitable[BatchProgress]],
    console: Console,
    *,
    every: float = LOOK_EVERY,
    until: Callable[[BatchProgress], Awaitable[bool]],
) -> BatchProgress:
    """Draw a bar until the job is over; returns how it was then.

    Args:
        look: tells how far the job is.
        console: where to draw.
        every: seconds between looks.
        until: tells whether it is over, once a look.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[words]}"),
    )
    with Progress(*columns, console=console) as drawn:
        progress = await look()
        bar = drawn.add_task(progress.state, total=progress.items, words="")
        while True:
            drawn.update(
                bar, description=progress.state, completed=progress.done, words=_beside(progress)
            )
            if await until(progress):
                return progress
            await asyncio.sleep(every)
            progress = await look()


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a job goes on: why it never will by itself, or what of it waits for a person."""

    refused: str | None = None
    stuck: Mapping[str, str] = field(default_factory=dict[str, str])
    """Why, by the step; it is tried again from time to time."""

    @property
    def waits_for(self) -> str:
        """What a person has to mend, in words."""
        return "; ".join(f"{_STEPS.get(step, step)}: {why}" for step, why in self.stuck.items())


_STEPS = {
    "submit_batches": "sending",
    "follow_batches": "reading results",
    "meter_batch": "telling Stripe",
    "cancel_batch": "cancelling",
    "finish_batch": "ending",
}


async def standing_of(temporal: Client, job_id: str) -> Standing:
    """Return how a job stands, as its workflow has it.

    Raises:
        RPCError: Temporal cannot be asked.
    """
    handle = temporal.get_workflow_handle(batch_workflow_id(job_id))
    try:
        described = await handle.describe()
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        return Standing("it was stored and never started; submit it again to start it")
    if described.status == WorkflowExecutionStatus.COMPLETED:
        return Standing()
    if described.status == WorkflowExecutionStatus.RUNNING:
        state = described.typed_search_attributes.get(BILLING_STATE)
        return Standing(stuck=await _stuck(handle) if state == BillingState.STUCK else {})
    try:
        await handle.result()
    except WorkflowFailureError as error:
        cause = error.cause
        return Standing(cause.message if isinstance(cause, ApplicationError) else str(cause))
    return Standing()


async def _stuck(handle: WorkflowHandle[Any, Any]) -> dict[str, str]:
    asking = handle.query(STUCK_QUERY, result_type=dict[str, str], rpc_timeout=_A_WORKER)  # pyright: ignore[reportUnknownMemberType]
    try:
        return await asking
    except (RPCError, WorkflowQueryFailedError):
        return {"a step": "no worker answers to say why"}


def summary(progress: BatchProgress, standing: Standing) -> list[tuple[str, Any]]:
    """Return how far a job is, as rows for people."""
    end = expected_end(progress)
    return [
        ("state", progress.state),
        *([("waits for a person", standing.waits_for)] if standing.stuck else []),
        ("requests", progress.items),
        ("waiting to be sent", progress.waiting),
        ("at Claude", progress.in_flight),
        ("succeeded", progress.succeeded),
        ("errored", progress.errored),
        ("expired", progress.expired),
        ("canceled", progress.canceled),
        ("$ cost so far", progress.cost_usd),
        ("$ charged so far", progress.charge_usd),
        ("$ at most", progress.highest_charge_usd),
        ("$ saved by the batch price", progress.batch_saves_usd),
        ("submitted", progress.submitted_at),
        ("ended" if progress.finished_at else "expected end", progress.finished_at or end),
    ]


def expected_end(progress: BatchProgress) -> datetime | None:
    """Return when the job will have ended: by what has, or else the latest that it can take."""
    return progress.expected_end or progress.latest_end


def outcome(progress: BatchProgress) -> str:
    """Say in one sentence what came of an ended job."""
    failed = progress.errored + progress.expired + progress.canceled
    return (
        f"{progress.succeeded:,} of {progress.items:,} succeeded, {failed:,} did not; charged "
        f"{dollars(progress.charge_usd)}, {dollars(progress.batch_saves_usd)} less than in single "
        "calls"
    )


def _beside(progress: BatchProgress) -> str:
    """Say beside the bar what it does not show."""
    failed = progress.errored + progress.expired + progress.canceled
    said = [f"{dollars(progress.charge_usd)} charged"]
    if failed:
        said.append(f"{failed:,} without a reply")
    if progress.expected_end is not None:
        said.append(f"ends in about {_shortly(progress.expected_end - progress.as_of)}")
    elif progress.latest_end is not None:
        said.append(f"ends within {_shortly(progress.latest_end - progress.as_of)}")
    return ", ".join(said)


def _shortly(left: timedelta) -> str:
    minutes = round(max(left, timedelta(0)).total_seconds() / 60)
    if minutes < 1:
        return "a minute"
    return f"{minutes} min" if minutes <= _IN_MINUTES else f"{round(minutes / 60)} h"
