"""Histories written by this code, or by what was released before it, replay in this code."""

import json

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from tests.replay.paths import PATHS
from tests.replay.record import HISTORIES
from workers.plugin import TallystickPlugin


def _replayer() -> Replayer:
    return Replayer(workflows=[], plugins=[TallystickPlugin()])


def _load(name: str) -> WorkflowHistory:
    text = (HISTORIES / f"{name}.json").read_text()
    return WorkflowHistory.from_json(f"claude-request/acme/{name}", text)


def test_every_path_has_a_recording_and_no_other_lies_about() -> None:
    assert {file.stem for file in HISTORIES.glob("*.json")} == set(PATHS)


@pytest.mark.parametrize("name", sorted(PATHS))
async def test_a_recorded_history_replays(name: str) -> None:
    await _replayer().replay_workflow(_load(name))


async def test_a_history_that_this_code_did_not_write_is_noticed() -> None:
    told = json.loads((HISTORIES / "answered.json").read_text())
    for event in told["events"]:
        attributes = event.get("activityTaskScheduledEventAttributes")
        if attributes and attributes["activityType"]["name"] == "call_claude":
            attributes["activityType"]["name"] = "call_somebody_else"
    changed = WorkflowHistory.from_json("claude-request/acme/changed", json.dumps(told))
    with pytest.raises(NondeterminismError):
        await _replayer().replay_workflow(changed)
