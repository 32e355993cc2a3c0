"""Old and new code side by side: requests end where they began, accounts move on."""

import asyncio
import sys
from asyncio.subprocess import DEVNULL, Process
from pathlib import Path

from temporalio.api.enums.v1 import EventType

from activities.waking import wake
from scripts.chaos_parts.load import marked
from tallystick.contracts import News, cycle_workflow_id, request_workflow_id
from tests.crash.drill import PATIENCE, Drill

DEPLOYMENT = "billing"


async def test_a_request_ends_on_the_build_that_began_it_and_an_account_moves_to_the_next(
    stack: Drill,
) -> None:
    old = await _current(stack, "a")
    hold = await stack.claude.hold(match=marked("begun-on-a"))
    stack.ask("begun-on-a")
    await stack.claude.caught(hold)
    await wake(stack.temporal, "acme", News())
    await _until_worked_on_by(stack, cycle_workflow_id("acme"), old)

    new = await _current(stack, "b")
    stack.ask("begun-on-b")
    await stack.asked["acme", "begun-on-b"]
    await stack.claude.release(hold)
    await stack.finished()
    assert await _hands(stack, request_workflow_id("acme", "begun-on-a")) == {old.pid}
    assert await _hands(stack, request_workflow_id("acme", "begun-on-b")) == {new.pid}
    await wake(stack.temporal, "acme", News())
    await _until_worked_on_by(stack, cycle_workflow_id("acme"), new)
    # The query by which docs/versions.md finds what is pinned to a build.
    pinned = stack.temporal.list_workflows(f'TemporalWorkerDeploymentVersion = "{DEPLOYMENT}:a"')
    assert request_workflow_id("acme", "begun-on-a") in {each.id async for each in pinned}


async def _current(stack: Drill, build_id: str) -> Process:
    """Start a worker of this build and make it the current one, as docs/versions.md says it."""
    worker = await stack.start_worker(
        TALLYSTICK_DEPLOYMENT=DEPLOYMENT, TALLYSTICK_BUILD_ID=build_id
    )
    async with asyncio.timeout(PATIENCE):
        while True:  # the server refuses until the worker's queues are known to it
            command = await asyncio.create_subprocess_exec(
                str(Path(sys.executable).parent / "temporal"),
                "worker", "deployment", "set-current-version", "--yes",
                "--deployment-name", DEPLOYMENT, "--build-id", build_id,
                "--address", stack.stack.temporal.address,
                stdout=DEVNULL,
                stderr=DEVNULL,
            )  # fmt: skip
            if await command.wait() == 0:
                return worker
            await asyncio.sleep(0.1)


async def _until_worked_on_by(stack: Drill, workflow_id: str, worker: Process) -> None:
    async with asyncio.timeout(PATIENCE):
        while worker.pid not in await _hands(stack, workflow_id):
            await asyncio.sleep(0.1)


async def _hands(stack: Drill, workflow_id: str) -> set[int]:
    """Return the processes that have worked on it, its steps included, by its history."""
    history = await stack.temporal.get_workflow_handle(workflow_id).fetch_history()
    started = [
        event.workflow_task_started_event_attributes
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED
        else event.activity_task_started_event_attributes
        for event in history.events
        if event.event_type
        in (
            EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED,
            EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED,
        )
    ]
    return {int(each.identity.split("@")[0]) for each in started}
