"""When Claude fails: each call leaves its attempt, and the error table decides what follows."""

import asyncio

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client as TemporalClient

from tallystick.errors import ClaudeError, RequestCancelledError, TallystickError
from tallystick.ledger.tables import Outcome
from tests.support.house import PATIENCE, House, open_house

FAILED, UNKNOWN, SUCCEEDED = Outcome.FAILED, Outcome.INDETERMINATE, Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("fault", "error_type", "outcome"),
    [
        ("rate_limited", "ClaudeRateLimited", FAILED),
        ("error_500", "ClaudeUnavailable", FAILED),
        ("error_503", "ClaudeUnavailable", FAILED),
        ("error_529", "ClaudeOverloaded", FAILED),
        ("reset", "ClaudeNoAnswer", UNKNOWN),
        ("undelivered", "ClaudeNoAnswer", UNKNOWN),
    ],
)
async def test_trouble_that_passes_costs_an_attempt_and_no_answer(
    house: House, fault: str, error_type: str, outcome: Outcome
) -> None:
    await house.claude.order(fault, match="<r-1>")
    reply = await house.ask("r-1")
    first, second = await house.attempts("r-1")
    assert (first.outcome, first.error_type) == (outcome, error_type)
    assert (second.outcome, second.message_id) == (SUCCEEDED, reply.id)
    (record,) = await house.records("r-1")
    assert record.attempts == 2
    assert record.attempt_id == second.attempt_id


@pytest.mark.parametrize("fault", ["cut_stream", "truncated_stream", "stream_error"])
async def test_a_broken_stream_is_never_taken_for_an_answer(house: House, fault: str) -> None:
    await house.claude.order(fault, match="<r-1>")
    reply = await house.ask("r-1", max_tokens=30_000)
    first, second = await house.attempts("r-1")
    assert (first.outcome, first.error_type) == (UNKNOWN, "ClaudeStreamBroken")
    assert first.usage is not None  # the lower bound that the stream had told
    assert first.usage["input_tokens"] == reply.usage.input_tokens
    assert first.reply is None
    assert (second.outcome, second.message_id) == (SUCCEEDED, reply.id)
    assert len(await house.claude.journal()) == 2


async def test_every_served_call_is_in_the_attempts_though_only_one_is_billed(
    house: House,
) -> None:
    await house.claude.order("undelivered", match="<r-1>", times=2)
    await house.ask("r-1")
    assert len(await house.claude.journal()) == 3
    assert [a.outcome for a in await house.attempts("r-1")] == [UNKNOWN, UNKNOWN, SUCCEEDED]
    assert len(await house.records("r-1")) == 1


async def test_retry_after_sets_the_delay_of_the_next_attempt(house: House) -> None:
    await house.claude.order("rate_limited", match="<r-1>", retry_after=2)
    await house.ask("r-1")
    history = await house.workflow("r-1").fetch_history()
    (failed,) = [
        event.activity_task_started_event_attributes.last_failure.application_failure_info
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED
        and event.activity_task_started_event_attributes.attempt == 2
    ]
    assert failed.type == "ClaudeRateLimited"
    assert failed.next_retry_delay.seconds == 2


@pytest.mark.parametrize(
    ("fault", "error_type"),
    [("error_401", "ClaudeForbidden"), ("error_403", "ClaudeForbidden")],
)
async def test_a_rejected_key_is_final_at_once(house: House, fault: str, error_type: str) -> None:
    await house.claude.order(fault, match="<r-1>")
    with pytest.raises(ClaudeError) as refused:
        await house.ask("r-1")
    assert refused.value.type == error_type
    assert len(await house.attempts("r-1")) == 1


@pytest.mark.parametrize(
    ("fault", "error_type"),
    [("spend_limit", "ClaudeSpendLimit"), ("error_402", "ClaudePaymentRequired")],
)
async def test_a_spend_limit_is_no_rate_limit_but_waits_for_a_person(
    house: House, fault: str, error_type: str
) -> None:
    await house.claude.order(fault, match="<r-1>")
    waiting = asyncio.create_task(house.ask("r-1"))
    await house.reaches("r-1", "stuck")
    (attempt,) = await house.attempts("r-1")
    assert (attempt.outcome, attempt.error_type) == (FAILED, error_type)
    await house.workflow("r-1").signal("retry_now")
    assert (await waiting).bill.charge_usd
    await house.done("r-1")
    assert await house.billing_state("r-1") == "active"


async def test_calls_that_keep_ending_without_an_outcome_are_given_up(
    temporal: TemporalClient, database_url: str
) -> None:
    async with open_house(temporal, database_url, "unlucky", max_unknown_outcomes=2) as house:
        await house.claude.order("undelivered", match="<r-1>", times=None)
        with pytest.raises(ClaudeError, match="without a known outcome"):
            await house.ask("r-1")
        attempts = await house.attempts("r-1")
        assert [a.outcome for a in attempts] == [UNKNOWN] * 2
        assert len(await house.claude.journal()) == 2
        assert await house.records("r-1") == []


async def test_a_request_cancelled_while_claude_works_is_billed_all_the_same(
    house: House,
) -> None:
    hold = await house.claude.hold(match="<r-1>")
    asking = asyncio.create_task(house.ask("r-1"))
    await house.claude.caught(hold)
    await house.workflow("r-1").cancel()
    await house.claude.release(hold)
    assert (await asking).bill.charge_usd
    await house.done("r-1")
    assert len(await house.records("r-1")) == 1
    assert all(event.delivered_at for event in await house.meter_events("r-1"))


async def test_a_request_cancelled_between_attempts_ends_unbilled(house: House) -> None:
    await house.claude.order("rate_limited", match="<r-1>", retry_after=600)
    asking = asyncio.create_task(house.ask("r-1"))
    async with asyncio.timeout(PATIENCE):
        while not [a for a in await house.attempts("r-1") if a.outcome == FAILED]:
            await asyncio.sleep(0.05)
    await house.workflow("r-1").cancel()
    with pytest.raises(RequestCancelledError):
        await asking
    assert await house.records("r-1") == []


async def test_errors_show_neither_prompt_nor_key(house: House) -> None:
    await house.claude.order("error_401", match="<r-1>")
    with pytest.raises(TallystickError) as refused:
        await house.ask("r-1", messages=[{"role": "user", "content": "<r-1> secret plans"}])
    (attempt,) = await house.attempts("r-1")
    told = f"{refused.value} {refused.value.details} {attempt.error_message}"
    assert "secret plans" not in told
    assert "sk-ant" not in told
