"""An error that carries more than Temporal takes arrives as what it is."""

import asyncio
from datetime import timedelta

import pytest
from temporalio import activity
from temporalio.client import ActivityFailureError
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from activities.failures import failure
from tallystick.embedded import TemporalServer
from tallystick.errors import CLAUDE_PAYMENT_REQUIRED
from tallystick.payloads.keys import Keyring
from tallystick.temporal import connect_temporal
from tests.payloads.stage import new_key

HUGE = "quoted " * 700_000
"""Nearly 5 MB: more than a failure may have, and than one message to the server."""
QUEUE = "raising"


@activity.defn
async def raise_for_a_huge_cause() -> None:
    told = failure(CLAUDE_PAYMENT_REQUIRED, "the card", claude_request_id="req_1")
    raise told from ValueError(HUGE)


@pytest.mark.parametrize("keys", [(), (new_key("a"),)], ids=["plain", "sealed"])
async def test_an_error_with_a_huge_cause_arrives_as_what_it_is(
    temporal_server: TemporalServer, keys: tuple[str, ...]
) -> None:
    client = await connect_temporal(temporal_server.address, keys=Keyring.parse(keys))
    async with Worker(client, task_queue=QUEUE, activities=[raise_for_a_huge_cause]):
        with pytest.raises(ActivityFailureError) as raised:
            async with asyncio.timeout(60):
                await client.execute_activity(
                    raise_for_a_huge_cause,
                    id=f"raising-{len(keys)}",
                    task_queue=QUEUE,
                    start_to_close_timeout=timedelta(seconds=30),
                )
    told = raised.value.cause
    assert isinstance(told, ApplicationError)
    assert (told.type, told.message, told.non_retryable) == (
        CLAUDE_PAYMENT_REQUIRED.type,
        "the card",
        True,
    )
    assert told.details == ({"claude_request_id": "req_1"},)
    reason = told.cause
    assert isinstance(reason, ApplicationError)
    assert reason.type == "ValueError"
    assert reason.message
    assert HUGE.startswith(reason.message)
