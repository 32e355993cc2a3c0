"""How far a batch job is: in one line, as a table, and as a bar that ends with the job.

The counts come from the ledger, so they are there whether or not a worker runs. That a job was
refused is told by its workflow alone: nothing of a refused job is in the ledger but what was asked.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from tallystick.contracts import BatchProgress, batch_workflow_id
from tallystick.pricing.explain import dollars

_IN_MINUTES = 90
"""Up to so many minutes, what is left is told in minutes."""
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


async def refusal(temporal: Client, job_id: str) -> str | None:
    """Return why the job will not go on by itself, or None: it goes on, or is done.

    Raises:
        RPCError: Temporal cannot be asked.
    """
    handle = temporal.get_workflow_handle(batch_workflow_id(job_id))
    try:
        status = (await handle.describe()).status
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        return "it was stored and never started; submit it again to start it"
    if status in (WorkflowExecutionStatus.RUNNING, WorkflowExecutionStatus.COMPLETED):
        return None
    try:
        await handle.result()
    except WorkflowFailureError as error:
        cause = error.cause
        return cause.message if isinstance(cause, ApplicationError) else str(cause)
    return None


def summary(progress: BatchProgress) -> list[tuple[str, Any]]:
    """Return how far a job is, as rows for people."""
    end = expected_end(progress)
    return [
        ("state", progress.state),
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
