"""Everything that waits, seen from both sides: the ledger's view laid beside Temporal's.

The ledger knows what is owed and why it is not done (`ledger.waiting`); Temporal knows what is
being tried, how often and how it failed last. A row of the ledger names the workflow that goes on
with it, so the two meet there; a workflow that shows a state nobody should be in, or is older than
it should be, and that no row of the ledger names, becomes a row of its own. Either side alone still
says what it knows. Failures are shown in the words of the error table; no payload is ever read.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from temporalio.api.common.v1 import WorkflowExecution as ExecutionId
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryReverseRequest
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionDescription
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from tallystick.contracts import BILLING_CYCLE, CLAUDE_REQUEST, MESSAGE_BATCH, BillingState
from tallystick.errors import PayloadUnreadableError
from tallystick.ledger.waiting import Waiting
from tallystick.plans.agenda import AccountState
from tallystick.remedies import remedy
from tallystick.temporal import BILLING_STATE, CUSTOMER_ID

WAITING_STATES = (BillingState.STUCK, AccountState.GRACE, AccountState.SUSPENDED)
"""Values of `BillingState` that a running workflow shows while it waits for a person."""
_OURS = (CLAUDE_REQUEST, MESSAGE_BATCH, BILLING_CYCLE)
_HAVE_REQUESTS = ("claude-request", "message-batch")
AT_ONCE = 20
"""Calls to Temporal in flight."""
NEWEST_EVENTS = 200
"""Of a history, for how often a step was tried: a parked one adds some ten events a day."""
_LOCAL_ACTIVITY = "core_local_activity"
"""The marker that SDKs leave for a local activity; one that failed has the failure in it."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """One thing that waits, with all that either side knows of it.

    `state` is the workflow's `BillingState`, None where no workflow runs. `attempts` is None where
    nobody counts them. `remedy` is what can be done about it, a command where there is one.
    """

    what: str
    subject: str
    customer_id: str
    request_id: str
    since: datetime
    why: str
    at_stake_usd: Decimal | None
    attempts: int | None
    state: str | None
    workflow_id: str | None
    remedy: str


@dataclass(frozen=True, slots=True)
class Look:
    """What Temporal knows of a workflow: whether it runs, its state, and the step that fails."""

    running: bool
    state: str | None
    attempts: int | None
    failure: str | None


def by_money(rows: Iterable[Waiting]) -> list[Waiting]:
    """Return them with the most money first, and of the same amount the oldest first."""
    return sorted(rows, key=lambda row: (-(row.at_stake_usd or Decimal(0)), row.since))


def without_temporal(rows: Iterable[Waiting]) -> list[Stuck]:
    """Return what the ledger alone can say."""
    return [_joined(row, None) for row in rows]


async def with_temporal(client: Client, rows: Iterable[Waiting]) -> list[Stuck]:
    """Return the rows with what Temporal knows of their workflows.

    Raises:
        RPCError: when Temporal does not answer.
    """
    rows = list(rows)
    names = sorted({row.workflow_id for row in rows if row.workflow_id})
    room = asyncio.Semaphore(AT_ONCE)

    async def look_at(name: str) -> Look | None:
        async with room:
            return await look(client, name)

    looks = dict(zip(names, await asyncio.gather(*map(look_at, names)), strict=True))
    return [_joined(row, looks.get(row.workflow_id or "")) for row in rows]


async def known_to_temporal_alone(
    client: Client, rows: Sequence[Waiting], *, older_than: datetime
) -> list[Waiting]:
    """Return a row for each workflow that waits and that none of `rows` names.

    Those are workflows that show so (`WAITING_STATES`), and requests from before `older_than` that
    have left nothing in the ledger: not admitted, or not called yet.

    Raises:
        RPCError: when Temporal does not answer.
    """
    named = {row.workflow_id for row in rows}
    states = ", ".join(f"'{state}'" for state in WAITING_STATES)
    found: list[Waiting] = []
    for what, query in (
        ("", f"BillingState IN ({states})"),
        (
            "unanswered",
            f"WorkflowType = '{CLAUDE_REQUEST}' AND BillingState = '{BillingState.ACTIVE}' "
            f"AND StartTime < '{older_than.isoformat()}'",
        ),
    ):
        async for execution in client.list_workflows(f"ExecutionStatus = 'Running' AND {query}"):
            if execution.id not in named and execution.workflow_type in _OURS:
                named.add(execution.id)
                found.append(_row(what, execution))
    return found


def _row(what: str, execution: WorkflowExecution) -> Waiting:
    attributes = execution.typed_search_attributes
    state, customer_id = attributes.get(BILLING_STATE) or "", attributes.get(CUSTOMER_ID) or ""
    kind, _, rest = execution.id.partition("/")
    return Waiting(
        what=what or state,
        subject=execution.id,
        customer_id=customer_id,
        request_id=rest.removeprefix(f"{customer_id}/") if kind in _HAVE_REQUESTS else "",
        since=execution.start_time,
        why="not answered yet" if what else f"its workflow shows {state!r}",
        workflow_id=execution.id,
    )


def _joined(row: Waiting, seen: Look | None) -> Stuck:
    # A parked event says why in the ledger, which is newer than what a workflow heard last.
    told = seen.failure if seen and seen.failure and row.what not in _TOLD_BY_LEDGER else None
    return Stuck(
        what=row.what,
        subject=row.subject,
        customer_id=row.customer_id,
        request_id=row.request_id,
        since=row.since,
        why=told or row.why,
        at_stake_usd=row.at_stake_usd,
        attempts=row.attempts if seen is None or seen.attempts is None else seen.attempts,
        state=seen.state if seen and seen.running else None,
        workflow_id=row.workflow_id,
        remedy=remedy(row),
    )


_TOLD_BY_LEDGER = ("parked", "unpaid", "outcome unknown")


# --- One workflow ---------------------------------------------------------------------------------
async def look(client: Client, workflow_id: str) -> Look | None:
    """Ask Temporal about a workflow; None where it knows none by that id.

    Raises:
        RPCError: when Temporal does not answer.
    """
    try:
        seen = await client.get_workflow_handle(workflow_id).describe()
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            return None
        raise
    running = seen.close_time is None
    state = seen.typed_search_attributes.get(BILLING_STATE)
    if not running:
        return Look(running, state, None, None)
    attempts, failure = _under_way(seen) or _last_failure(await _newest_events(client, seen))
    words = None if failure is None else await _words(client, failure)
    return Look(running, state, attempts, words)


def _under_way(seen: WorkflowExecutionDescription) -> tuple[int, Failure | None] | None:
    """Return how often the step that is being retried was tried, and how it failed last."""
    raw = seen.raw_description
    pending = [
        (each.attempt, each.last_failure if each.HasField("last_failure") else None)
        for each in raw.pending_activities
        if each.attempt > 1 or each.HasField("last_failure")
    ]
    return max(pending, key=lambda each: each[0], default=None)


async def _newest_events(
    client: Client, seen: WorkflowExecutionDescription
) -> Sequence[HistoryEvent]:
    answer = await client.workflow_service.get_workflow_execution_history_reverse(
        GetWorkflowExecutionHistoryReverseRequest(
            namespace=client.namespace,
            execution=ExecutionId(workflow_id=seen.id, run_id=seen.run_id),
            maximum_page_size=NEWEST_EVENTS,
        )
    )
    return answer.history.events[::-1]


def _last_failure(events: Iterable[HistoryEvent]) -> tuple[int | None, Failure | None]:
    """Return how often the step that failed last was tried, since it last succeeded, and how.

    A local activity whose retry is far off leaves a marker with its failure and its attempt.
    """
    name_of: dict[int, str] = {}
    attempt_of: dict[int, int] = {}
    failed: dict[str, tuple[int, Failure]] = {}
    for event in events:
        match event.WhichOneof("attributes"):
            case "activity_task_scheduled_event_attributes":
                scheduled = event.activity_task_scheduled_event_attributes
                name_of[event.event_id] = scheduled.activity_type.name
            case "activity_task_started_event_attributes":
                started = event.activity_task_started_event_attributes
                attempt_of[started.scheduled_event_id] = started.attempt
            case "activity_task_completed_event_attributes":
                done = event.activity_task_completed_event_attributes
                failed.pop(name_of.get(done.scheduled_event_id, ""), None)
            case "activity_task_failed_event_attributes":
                ended = event.activity_task_failed_event_attributes
                name = name_of.get(ended.scheduled_event_id, "")
                tries, _ = failed.pop(name, (0, None))
                tries += attempt_of.get(ended.scheduled_event_id, 1)
                failed[name] = (tries, ended.failure)
            case "marker_recorded_event_attributes":
                marker = event.marker_recorded_event_attributes
                if marker.marker_name == _LOCAL_ACTIVITY:
                    of = _marker_data(marker.details["data"].payloads[0].data)
                    name = str(of.get("activity_type", ""))
                    failed.pop(name, None)
                    if marker.HasField("failure"):
                        failed[name] = (int(of.get("attempt", 1)), marker.failure)
            case _:
                pass
    return next(reversed(failed.values()), (None, None))


def _marker_data(data: bytes) -> Mapping[str, Any]:
    try:
        return json.loads(data)
    except ValueError:
        return {}


async def _words(client: Client, failure: Failure) -> str:
    """Return what an activity said of its failure, neither what wraps that nor what caused it."""
    try:
        error: BaseException | None = await client.data_converter.decode_failure(failure)
    except PayloadUnreadableError as unreadable:
        return str(unreadable)
    while error is not None and not isinstance(error, ApplicationError):
        error = error.__cause__
    return failure.message if error is None else error.message
