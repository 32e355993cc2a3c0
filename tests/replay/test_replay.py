"""Histories written by this code, or by what was released before it, replay in this code."""

import json

import pytest
from opentelemetry.sdk.trace import TracerProvider
from temporalio.client import WorkflowHistory
from temporalio.worker import Interceptor, Replayer
from temporalio.workflow import NondeterminismError

from tallystick.contracts import (
    BILLING_CYCLE,
    CLAUDE_REQUEST,
    MESSAGE_BATCH,
    RECONCILIATION,
    SWEEP,
)
from tallystick.tracing import Tracing
from tests.replay.paths import WORKFLOWS
from tests.replay.record import HISTORIES, without_origin
from workers import plugin

RECORDED = [
    (workflow, path) for workflow, module in WORKFLOWS.items() for path in sorted(module.PATHS)
]


def _text(workflow: str, path: str) -> str:
    return (HISTORIES / workflow / f"{path}.json").read_text()


async def _replay(workflow: str, text: str, *interceptors: Interceptor) -> None:
    history = WorkflowHistory.from_json(f"{workflow}/replayed", text)
    replayer = Replayer(
        workflows=[], plugins=[plugin.TallystickPlugin()], interceptors=interceptors
    )
    await replayer.replay_workflow(history)


def test_every_workflow_of_a_worker_has_paths() -> None:
    names = {workflow.__name__.removesuffix("Workflow") for workflow in plugin.WORKFLOWS}
    assert names == set(WORKFLOWS)


def test_every_path_has_a_recording_and_no_other_lies_about() -> None:
    kept = {(file.parent.name, file.stem) for file in HISTORIES.rglob("*.json")}
    assert kept == set(RECORDED)


@pytest.mark.parametrize(("workflow", "path"), RECORDED)
async def test_a_recorded_history_replays(workflow: str, path: str) -> None:
    await _replay(workflow, _text(workflow, path))


@pytest.mark.parametrize("workflow", WORKFLOWS)
async def test_tracing_may_be_switched_on_while_a_workflow_runs(workflow: str) -> None:
    tracing = Tracing(TracerProvider(shutdown_on_exit=False).get_tracer("tests"))
    for path in WORKFLOWS[workflow].PATHS:
        await _replay(workflow, _text(workflow, path), tracing)


@pytest.mark.parametrize(("workflow", "path"), RECORDED)
def test_a_recording_tells_nothing_of_the_machine(workflow: str, path: str) -> None:
    told = json.loads(_text(workflow, path))
    assert told == without_origin(told)


@pytest.mark.parametrize(
    ("workflow", "path", "step"),
    [
        (CLAUDE_REQUEST, "answered", "call_claude"),
        (BILLING_CYCLE, "subscription_period_closed", "settle_period"),
        (SWEEP, "swept", "wake_accounts"),
        (MESSAGE_BATCH, "settled", "follow_batches"),
        (RECONCILIATION, "clean", "compare_stripe"),
    ],
)
async def test_a_history_that_this_code_did_not_write_is_noticed(
    workflow: str, path: str, step: str
) -> None:
    told = json.loads(_text(workflow, path))
    for event in told["events"]:
        attributes = event.get("activityTaskScheduledEventAttributes")
        if attributes and attributes["activityType"]["name"] == step:
            attributes["activityType"]["name"] = "something_else"
    with pytest.raises(NondeterminismError):
        await _replay(workflow, json.dumps(told))
