"""A run of reconciliation by hand: started once for its hours, and followed step by step.

The run belongs to Temporal and not to the terminal: whoever breaks the command off and gives it
again, or asks for the same hours beside somebody else, follows the run that is under way.
"""

import asyncio
from contextlib import suppress

from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from tallystick.cli.output import fail, note
from tallystick.contracts import (
    PROGRESS_QUERY,
    RECONCILIATION,
    TASK_QUEUE,
    ReconcileOrder,
    ReconcileProgress,
    ReconcileResult,
    reconciliation_workflow_id,
)
from tallystick.errors import UnavailableError
from tallystick.reconciling.intervals import Interval
from tallystick.reconciling.words import when
from tallystick.temporal import connect_temporal

Run = WorkflowHandle[object, ReconcileResult]
LOOK_EVERY = 0.5
"""Seconds between looks at how far the run is."""
SLOW = 10.0
"""Seconds after which a person wonders what is waited for."""


async def run_by_hand(hours: Interval) -> tuple[ReconcileResult, ReconcileProgress]:
    """Have the hours compared, and say on the way what each step came to.

    Raises:
        UnavailableError: Temporal does not answer.
    """
    temporal = await connect_temporal()
    try:
        run = await _start(temporal, hours)
        return await _follow(run)
    except WorkflowFailureError as error:
        cause = error.cause
        fail(cause.message if isinstance(cause, ApplicationError) else str(cause))
    except RPCError as error:
        raise UnavailableError(
            f"Temporal does not answer: {error}; what is under way goes on, and the same command "
            "follows it (TEMPORAL_ADDRESS says where Temporal is)"
        ) from error


async def _start(temporal: Client, hours: Interval) -> Run:
    return await temporal.start_workflow(
        RECONCILIATION,
        ReconcileOrder(start=hours.start, end=hours.end),
        id=reconciliation_workflow_id(*hours),
        task_queue=TASK_QUEUE,
        result_type=ReconcileResult,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        static_summary=when(*hours),
    )


async def _follow(run: Run) -> tuple[ReconcileResult, ReconcileProgress]:
    ending = asyncio.ensure_future(run.result())
    told: set[str] = set()
    quiet_since, wondered = _now(), False
    while not ending.done():
        await asyncio.wait({ending}, timeout=LOOK_EVERY)
        progress = None
        with suppress(RPCError):  # nobody answers yet, or no longer
            progress = await _progress(run)
        if progress is not None and _tell(progress, told):
            quiet_since, wondered = _now(), False
        if not wondered and _now() - quiet_since > SLOW:
            note(_waited_for(progress))
            wondered = True
    progress = await _progress(run)
    _tell(progress, told)
    return await ending, progress


def _tell(progress: ReconcileProgress, told: set[str]) -> bool:
    """Say what is news; tell whether anything was."""
    news = [name for name in progress.done if name not in told]
    for name in news:
        note(f"{name}: {'failed: ' if name in progress.failed else ''}{progress.done[name]}")
    told.update(news)
    return bool(news)


def _waited_for(progress: ReconcileProgress | None) -> str:
    if progress is None:
        return "no worker has answered yet; still waiting (`tallystick worker` runs one)"
    if not progress.running:
        return "Stripe is given time to count what it was sent"
    return f"under way: {', '.join(progress.running)}"


async def _progress(run: Run) -> ReconcileProgress:
    return await run.query(PROGRESS_QUERY, result_type=ReconcileProgress)


def _now() -> float:
    return asyncio.get_running_loop().time()
