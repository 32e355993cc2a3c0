"""A cancelled activity does not cut off a call: Claude bills what it generates all the same."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import select
from temporalio.activity import ActivityCancellationDetails
from temporalio.testing import ActivityEnvironment

from activities.claude import ClaudeActivities
from activities.claude_api import ClaudeApi
from tallystick.contracts import ClaudeRequest, ServedReply
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Attempt
from tallystick.sandbox.claude import create_claude_app
from tallystick.sandbox.remote import Control
from tallystick.sandbox.server import serve
from tests.crash.drill import MODEL

REQUEST = ClaudeRequest(
    customer_id="acme",
    request_id="one",
    params={
        "model": MODEL,
        "max_tokens": 64,
        "messages": [{"role": "user", "content": "What is a tally?"}],
    },
)


@dataclass
class Calling:
    """The activity under way, its call held by Claude."""

    activity: asyncio.Task[ServedReply]
    environment: ActivityEnvironment
    claude: Control
    hold: str
    ledger: Ledger

    async def attempt(self) -> Attempt:
        async with self.ledger.begin() as tx:
            return (await tx.execute(select(Attempt))).one()


@pytest_asyncio.fixture
async def calling(ledger: Ledger) -> AsyncIterator[Calling]:
    async with (
        serve(create_claude_app()) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as http,
    ):
        api = ClaudeApi("sk-ant-test", url, timeout=60)
        environment, claude = ActivityEnvironment(), Control(http)
        activities = ClaudeActivities(ledger, api, max_unknown_outcomes=5)
        hold = await claude.hold(match="What is a tally?", at="served")
        task = asyncio.create_task(environment.run(activities.call_claude, REQUEST))
        await claude.caught(hold)
        yield Calling(task, environment, claude, hold, ledger)
        await activities.drain()
        await api.close()


@pytest.mark.parametrize("why", ["cancel_requested", "not_found", "timed_out"])
async def test_a_call_whose_activity_is_cancelled_is_seen_through(
    calling: Calling, why: str
) -> None:
    calling.environment.cancel(ActivityCancellationDetails(**{why: True}))
    await asyncio.sleep(0)  # it is told now
    await calling.claude.release(calling.hold)
    served = await calling.activity
    attempt = await calling.attempt()
    assert attempt.outcome == "succeeded"
    assert attempt.message_id == served.message["id"]
    assert [row["message_id"] for row in await calling.claude.journal()] == [attempt.message_id]


async def test_a_worker_whose_grace_is_over_leaves_the_call_and_says_so(calling: Calling) -> None:
    calling.environment.cancel(ActivityCancellationDetails(worker_shutdown=True))
    with pytest.raises(asyncio.CancelledError):
        await calling.activity
    attempt = await calling.attempt()
    assert attempt.outcome == "indeterminate"
    assert attempt.finished_at is not None
    await calling.claude.release(calling.hold)
