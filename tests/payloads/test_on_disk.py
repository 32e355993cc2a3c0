"""What lies on the disks: with keys no prompt and no reply, and nothing is lost when keys change.

Without keys the same search finds everything, so it would find a leak.
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import WorkflowFailureError, WorkflowHandle, WorkflowHistory
from temporalio.worker import Replayer

from tallystick.contracts import (
    CLAUDE_REQUEST,
    CLAUDE_TASK_QUEUE,
    TASK_QUEUE,
    ClaudeRequest,
    request_workflow_id,
)
from tallystick.documents import Asked
from tallystick.errors import PayloadUnreadableError, TallystickError
from tallystick.ledger.batches import NewJob
from tallystick.payloads.columns import ColumnSeal
from tallystick.payloads.keys import Keyring
from tallystick.plans.guards import Limits
from tallystick.submission import start, store
from tests.contents.stand import keep
from tests.payloads.stage import CUSTOMER, PATIENCE, Stage, body, new_key, open_stage, places
from tests.replay.record import HISTORIES
from workers.plugin import TallystickPlugin

CLAUDE_KEY = f"sk-ant-{os.urandom(16).hex()}"
CODEC_TOKEN = os.urandom(16).hex()
A, B = new_key("a"), new_key("b")
RECORDED = sorted((HISTORIES / CLAUDE_REQUEST).glob("*.json"))
LIMITS = Limits(100_000, Decimal(10))


@pytest_asyncio.fixture(scope="module")
async def stage() -> AsyncIterator[Stage]:
    # Not in pytest's own folder: PostgreSQL may run as another user.
    with tempfile.TemporaryDirectory(prefix="tallystick-", ignore_cleanup_errors=True) as home:
        environment = {"ANTHROPIC_API_KEY": CLAUDE_KEY, "TALLYSTICK_CODEC_TOKEN": CODEC_TOKEN}
        async with open_stage(Path(home), **environment) as stage:
            yield stage


class Markers:
    """Texts that are nowhere else, one for each thing that somebody might read."""

    def __init__(self) -> None:
        self.prompt, self.reply, self.label, self.error = (
            f"{kind}_{os.urandom(16).hex()}" for kind in ("prompt", "reply", "label", "error")
        )


async def test_with_keys_nothing_is_readable_and_without_everything(stage: Stage) -> None:
    plain = Markers()
    await _use_everything(stage, plain)
    found = await stage.everything()
    assert places(found, plain.prompt) == {
        "temporal",
        "table payloads",
        "table batch_items",
        "table request_contents",
    }
    assert places(found, plain.reply) == {
        "temporal",
        "table attempts",
        "table batch_results",
        "table request_contents",
    }
    assert places(found, plain.label) == {"temporal", "table usage_records"}
    assert places(found, plain.error) == {"temporal", "table attempts"}

    sealed = Markers()
    await _use_everything(stage, sealed, A)
    found = await stage.everything()
    assert places(found, sealed.prompt) == set()
    assert places(found, sealed.reply) == set()
    # The caller's own label, kept to be searched; what Claude said of a request, for operators.
    assert places(found, sealed.label) == {"table usage_records"}
    assert places(found, sealed.error) == {"table attempts"}
    for secret in (CLAUDE_KEY, CODEC_TOKEN, A.removeprefix("a:")[:-4]):
        assert places(found, secret) == set()
    assert places(found, CUSTOMER) >= {"visibility", "temporal"}  # names are no secrets


async def _use_everything(stage: Stage, markers: Markers, *keys: str) -> None:
    """Leave a trace in every way there is: answered, large, failed, refused, quoted, in batches."""
    tag = "sealed" if keys else "plain"
    stage.claude.text = f"You said it: {markers.reply}"
    worker = await stage.start_worker(*keys)
    client, temporal = await stage.client(*keys), await stage.temporal(*keys)
    await keep(stage.ledger, CUSTOMER, 30)
    ask = client.messages.create
    asked = body(f"Say {markers.prompt}")
    answer = await ask(
        customer_id=CUSTOMER,
        request_id=f"{tag}-small",
        conversation_id=f"{tag}-conversation",
        customer_metadata={"label": markers.label},
        **asked,
    )
    assert markers.reply in answer.content[0].text
    # Kept apart, the text beside it as well.
    large = {"type": "text", "text": f"{markers.prompt} " * 50_000}
    await ask(
        customer_id=CUSTOMER,
        request_id=f"{tag}-large",
        max_input_tokens=10_000_000,
        **body("", messages=[{"role": "user", "content": [large]}]),
    )
    for request_id, changes in [
        (f"{tag}-refused-by-us", {"max_input_tokens": 1}),
        (f"{tag}-refused-by-claude", {markers.error: markers.prompt}),  # which quotes the name
    ]:
        with pytest.raises(TallystickError, match=f"over the limit|{markers.error}") as refused:
            await ask(customer_id=CUSTOMER, request_id=request_id, **{**asked, **changes})
        assert markers.prompt not in str(refused.value)
    with pytest.raises(WorkflowFailureError):
        await temporal.execute_workflow(
            CLAUDE_REQUEST, {"prompt": markers.prompt}, id=f"{tag}-bad", task_queue=TASK_QUEUE
        )
    await client.quote(customer_id=CUSTOMER, count=True, **asked)
    # A call whose workflow will never record it: the reply stays with its attempt.
    await temporal.execute_activity(
        "call_claude",
        ClaudeRequest(customer_id=CUSTOMER, request_id=f"{tag}-waiting", params=asked),
        id=f"{tag}-waiting",
        task_queue=CLAUDE_TASK_QUEUE,
        schedule_to_close_timeout=timedelta(seconds=PATIENCE),
    )
    for job_id in (f"{tag}-stored", f"{tag}-run"):
        job = await store(
            stage.ledger,
            NewJob(job_id, CUSTOMER),
            [Asked(asked)],
            LIMITS,
            datetime.now(UTC),
            seal=ColumnSeal(Keyring.parse(keys)),
        )
    await start(temporal, job)
    await asyncio.wait_for(
        temporal.get_workflow_handle(f"message-batch/{job_id}").result(), PATIENCE
    )
    await stage.stop_worker(worker)


async def test_what_began_under_one_key_ends_under_the_next(
    stage: Stage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.claude.text = "Well begun."
    request = {"customer_id": CUSTOMER, "request_id": "rotated", **body("Begin.")}
    await stage.stripe.order("unavailable", match="/meter_event", times=None)
    async with stage.working(A):
        answer = await (await stage.client(A)).messages.create(**request)
    await stage.stripe.disarm()

    # The new key alone: nothing is lost, nothing goes on, and it says why.
    new = await stage.temporal(B)
    handle = new.get_workflow_handle(request_workflow_id(CUSTOMER, "rotated"))
    async with stage.working(B):
        await handle.signal("retry_now")
        async with asyncio.timeout(PATIENCE):
            while await _tries(handle) < 2:
                await asyncio.sleep(0.05)
        with pytest.raises(PayloadUnreadableError, match=r"'a'.*TALLYSTICK_PAYLOAD_KEYS"):
            await (await stage.client(B)).messages.create(**request)
    assert "a key named 'a' that this process does not have" in caplog.text

    async with stage.working(B, A):
        both = await stage.temporal(B, A)
        await asyncio.wait_for(both.get_workflow_handle(handle.id).result(), PATIENCE)
    for keys in ((B, A), (A, B)):
        again = await (await stage.client(*keys)).messages.create(**request)
        assert (again.id, again.bill) == (answer.id, answer.bill)
    history = await handle.fetch_history()
    used = {
        each.metadata["encryption-key-id"] for event in history.events for each in _payloads(event)
    }
    assert used == {b"a", b"b"}
    monkeypatch.setenv("TALLYSTICK_PAYLOAD_KEYS", f"{B},{A}")
    await _replay(history)


@pytest.mark.parametrize(
    "recorded",
    [file.read_text() for file in RECORDED],
    ids=[file.stem for file in RECORDED],
)
async def test_what_was_written_before_there_were_keys_replays_with_them(
    monkeypatch: pytest.MonkeyPatch, recorded: str
) -> None:
    monkeypatch.setenv("TALLYSTICK_PAYLOAD_KEYS", A)
    await _replay(WorkflowHistory.from_json("recorded", recorded))


async def _replay(history: WorkflowHistory) -> None:
    await Replayer(workflows=[], plugins=[TallystickPlugin()]).replay_workflow(history)


async def _tries(handle: WorkflowHandle[Any, Any]) -> int:
    return (await handle.describe()).raw_description.pending_workflow_task.attempt


def _payloads(event: Any) -> list[Any]:
    result = event.workflow_execution_completed_event_attributes.result.payloads
    return [*event.workflow_execution_started_event_attributes.input.payloads, *result]
