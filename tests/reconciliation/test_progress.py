"""How far the questions to Stripe have come, as a worker tells it to whoever takes over."""

import asyncio
from array import array
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import ActivityEnvironment

from activities.heartbeats import heartbeating
from activities.stripe_clients import Refusal
from activities.stripe_hours import MOST_TOLD, Progress
from tallystick.errors import STRIPE_UNAVAILABLE
from tallystick.ledger.outbox_sums import MeterHours
from tallystick.metering import token_meter

START = datetime(2026, 11, 10, tzinfo=UTC)
INPUT = token_meter("input")


def meter(customer: str, *sent: int) -> MeterHours:
    hours = [int(START.timestamp()) + hour * 3600 for hour in range(len(sent))]
    return MeterHours(
        customer, (f"cus_{customer}",), INPUT, array("q", hours), sent, bytes(len(sent))
    )


def progress() -> Progress:
    return Progress(start=START, end=START + timedelta(days=1))


def counted(*values: int) -> dict[datetime, int]:
    return {START + timedelta(hours=hour): value for hour, value in enumerate(values)}


async def test_what_a_heartbeat_carries_is_all_that_the_next_worker_needs() -> None:
    told = progress()
    told.note(meter("a", 5, 7), counted(5, 7))
    told.note(meter("b", 5), Refusal(STRIPE_UNAVAILABLE, "503"))
    told.note(meter("c", 5), counted(4))
    carried = await pydantic_data_converter.decode(await pydantic_data_converter.encode([told]))
    taken_over = Progress.model_validate(carried[0])
    assert taken_over == told
    every = [meter(name, 1) for name in "dcba"]
    assert [each.customer_id for each in taken_over.not_asked(every)] == ["d"]
    assert [each.customer_id for each in taken_over.not_answered(every)] == ["b"]
    assert [each.customer_id for each in taken_over.differing] == ["c"]
    assert [*taken_over.counted["input"].values()] == [5 + 4, 7]


def test_a_progress_that_would_not_fit_into_a_heartbeat_is_not_told() -> None:
    told = progress()
    for number in range(MOST_TOLD + 1):
        assert told.to_tell() is told
        told.note(meter(f"customer-{number:05}", 5), counted(4))
    assert told.to_tell() is None


async def test_of_heartbeats_around_each_other_the_inner_one_says_what_all_carry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An empty one in between would make Temporal forget how far the work has come."""
    monkeypatch.setattr("activities.heartbeats.HEARTBEAT_EVERY", 0.01)
    told: list[tuple[Any, ...]] = []

    async def work() -> None:
        async with heartbeating(), heartbeating(lambda: "so far"):
            while len(told) < 3:
                await asyncio.sleep(0.01)

    environment = ActivityEnvironment()
    environment.on_heartbeat = lambda *details: told.append(details)
    await environment.run(work)
    assert set(told) == {("so far",)}
