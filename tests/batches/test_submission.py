"""Each item is sent once, whatever becomes of the answer to the create."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from activities.batch_api import Batch, BatchApi
from activities.claude_api import ClaudeCallError
from tallystick.errors import BATCH_RESULTS_ELSEWHERE
from tallystick.ledger.account_tables import Notice
from tallystick.ledger.batch_tables import BatchShard, ShardState
from tallystick.ledger.tables import Attempt, Outcome
from tallystick.plans.batching import could_be, mark_of
from tallystick.sandbox.server import serve
from tallystick.settings import SANDBOX_CLAUDE_KEY
from tests.batches.stand import Jobs, params_of
from tests.batches.test_jobs import must_tally

CREATE = "POST /v1/messages/batches?"
COUNTS = {"processing": 0, "succeeded": 3, "errored": 0, "canceled": 0, "expired": 0}


async def batches_made(jobs: Jobs, job_id: str) -> list[Batch]:
    """Return the batches of a job that there are at the stand-in, once they have ended."""
    api = BatchApi(SANDBOX_CLAUDE_KEY, str(jobs.house.claude._http.base_url), timeout=10)
    made: list[Batch] = []
    try:
        async for batch in api.newest_first():
            blocks = b"".join([block async for block in api.results(batch)])
            if f'"custom_id":"{mark_of(job_id)}-'.encode() in blocks:
                made.append(batch)
    finally:
        await api.close()
    return made


async def states(jobs: Jobs, job_id: str) -> list[ShardState]:
    return [shard["state"] for shard in await jobs.rows(BatchShard, job_id=job_id)]


async def statuses(jobs: Jobs) -> list[str]:
    """Return how the batches stand that have not ended at the stand-in, the latest first."""
    api = BatchApi(SANDBOX_CLAUDE_KEY, str(jobs.house.claude._http.base_url), timeout=10)
    try:
        listed = [batch async for batch in api.newest_first()]
    finally:
        await api.close()
    return [each.processing_status for each in listed if not each.has_ended]


async def test_a_create_whose_answer_is_lost_is_found_and_not_made_again(jobs: Jobs) -> None:
    await jobs.house.claude.order("undelivered", match=CREATE, times=2)
    await jobs.start("unanswered", 90)
    assert (await jobs.ended("unanswered")).succeeded == 90
    assert len(await batches_made(jobs, "unanswered")) == 2
    attempts = [a for a in await jobs.rows(Attempt) if a["request_id"].startswith("unanswered/")]
    assert len(attempts) == 90
    await must_tally(jobs)


async def test_a_batch_that_is_listed_late_is_waited_for(jobs: Jobs) -> None:
    await jobs.pace(hidden_for=0.8)  # half as long as it is looked for
    await jobs.house.claude.order("undelivered", match=CREATE)
    await jobs.start("hidden", 30)
    assert (await jobs.ended("hidden")).succeeded == 30
    assert len(await batches_made(jobs, "hidden")) == 1
    await must_tally(jobs)


@pytest.mark.parametrize("fault", ["reset", "error_503"])
async def test_a_create_that_made_nothing_is_made_again_after_a_while(
    jobs: Jobs, fault: str
) -> None:
    job_id = f"made-nothing-{fault}"
    await jobs.house.claude.order(fault, match=CREATE)
    await jobs.start(job_id, 30)
    assert (await jobs.ended(job_id)).succeeded == 30
    assert len(await batches_made(jobs, job_id)) == 1
    shards = await jobs.rows(BatchShard, job_id=job_id)
    assert [shard["state"] for shard in shards] == [ShardState.LOST, ShardState.SETTLED]
    (told,) = [n for n in await jobs.rows(Notice) if n["key"] == f"batch_lost:{job_id}:1"]
    assert told["audience"] == "operator"
    outcomes = [a["outcome"] for a in await jobs.rows(Attempt, request_id=f"{job_id}/0")]
    assert outcomes == [Outcome.INDETERMINATE, Outcome.SUCCEEDED]
    await must_tally(jobs)


async def test_a_batch_that_turns_up_too_late_is_cancelled_and_bills_nobody_twice(
    jobs: Jobs,
) -> None:
    # Nothing is seen of it, nor served, until the step before is known to have been taken; what is
    # in flight when the batch is cancelled is still served.
    await jobs.pace(hidden_for=3_600, items_per_second=0, in_flight=7)
    await jobs.house.claude.order("undelivered", match=CREATE)
    await jobs.start("twin", 40)
    async with asyncio.timeout(60):
        while await states(jobs, "twin") != [ShardState.LOST, ShardState.RUNNING]:
            await asyncio.sleep(0.1)
        await jobs.pace(hidden_for=0)
        while await statuses(jobs) != ["in_progress", "canceling"]:
            await asyncio.sleep(0.1)
    await jobs.pace(items_per_second=50_000)
    ended = await jobs.ended("twin")
    assert (ended.succeeded, ended.batches, ended.batches_settled) == (40, 2, 2)
    assert [n for n in await jobs.rows(Notice) if n["key"] == "batch_found:twin:1"]
    twin, wanted = await jobs.rows(BatchShard, job_id="twin")
    assert twin["tallied"] == {"succeeded": 7, "canceled": 33}
    assert wanted["tallied"] == {"succeeded": 40}
    await must_tally(jobs)


async def test_a_batch_of_somebody_else_is_not_taken_for_ours_for_long(jobs: Jobs) -> None:
    claude = jobs.house.claude
    requests = [{"custom_id": f"theirs-{n}", "params": params_of(n, "theirs")} for n in range(20)]
    headers = {"authorization": "Bearer other", "anthropic-version": "2023-06-01"}
    await jobs.submit("confused", 20)
    made = await claude._http.post(
        "/v1/messages/batches", json={"requests": requests}, headers=headers
    )
    made.raise_for_status()
    await claude.order("reset", match=CREATE)
    await jobs.run("confused")
    assert (await jobs.ended("confused")).succeeded == 20
    lost, wanted = await jobs.rows(BatchShard, job_id="confused")
    assert (lost["state"], len(lost["not_ours"])) == (ShardState.LOST, 1)
    assert wanted["state"] == ShardState.SETTLED
    await must_tally(jobs)


async def test_a_batch_that_cannot_be_seen_yet_is_no_missing_batch(jobs: Jobs) -> None:
    await jobs.pace(hidden_for=1.5)
    await jobs.start("unseen", 30)
    assert (await jobs.ended("unseen")).succeeded == 30
    await must_tally(jobs)


async def test_a_batch_that_is_refused_names_the_reason_with_each_of_its_documents(
    jobs: Jobs,
) -> None:
    await jobs.house.claude.order("error_400", match=CREATE)
    await jobs.start("refused", 70)
    ended = await jobs.ended("refused")
    assert (ended.errored, ended.succeeded, ended.batches) == (50, 20, 1)
    first = (await jobs.results("refused"))[0]
    assert first.error_type == "ClaudeRejected"
    assert "400" in (first.error_message or "")
    await must_tally(jobs)


@pytest.mark.parametrize("fault", ["rate_limited", "error_529"])
async def test_what_was_surely_not_made_is_sent_again_without_looking(
    jobs: Jobs, fault: str
) -> None:
    job_id = f"not-now-{fault}"
    options: dict[str, Any] = {"retry_after": 1} if fault == "rate_limited" else {}
    await jobs.house.claude.order(fault, match=CREATE, times=2, **options)
    await jobs.start(job_id, 30)
    assert (await jobs.ended(job_id)).succeeded == 30
    assert len(await jobs.rows(BatchShard, job_id=job_id)) == 1
    await must_tally(jobs)


async def test_a_spend_limit_parks_the_job_where_an_operator_sees_it(jobs: Jobs) -> None:
    await jobs.house.claude.order("spend_limit", match=CREATE)
    handle = await jobs.start("parked", 30)
    assert await jobs.reaches("parked", "stuck")
    await handle.signal("retry_now")
    assert (await jobs.ended("parked")).succeeded == 30
    assert await jobs.state("parked") == "active"
    await must_tally(jobs)


# --- Without a job --------------------------------------------------------------------------------
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def minute(number: float) -> datetime:
    return datetime.fromtimestamp(NOON.timestamp() + number * 60, UTC)


@pytest.mark.parametrize(
    ("items", "created", "fits"),
    [
        (30, 0.1, True),
        (29, 0.1, False),
        (30, -1.5, True),  # by a clock that is behind
        (30, -3, False),
        (30, 6, True),  # by a clock that is ahead
        (30, 8, False),
    ],
)
def test_a_batch_could_be_ours_by_its_size_and_its_hour(
    *, items: int, created: float, fits: bool
) -> None:
    verdict = could_be(
        items=30, sent_at=NOON, until=minute(5), batch_items=items, created_at=minute(created)
    )
    assert verdict is fits


async def test_the_key_goes_to_no_other_address() -> None:
    asked: list[str] = []

    async def elsewhere(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with serve(elsewhere) as ours, serve(elsewhere) as theirs:
        api = BatchApi("sk-ant-secret", ours, timeout=5)
        for url in (f"{theirs}/results", ours.replace("http:", "https:"), "http://[::1]/results"):
            batch = Batch(
                id="msgbatch_1",
                processing_status="ended",
                request_counts=COUNTS,
                created_at=NOON,
                expires_at=NOON,
                ended_at=NOON,
                results_url=url,
            )
            with pytest.raises(ClaudeCallError, match="our key is for") as refused:
                _ = [block async for block in api.results(batch)]
            assert refused.value.failure is BATCH_RESULTS_ELSEWHERE
        own = batch.model_copy(update={"results_url": f"{ours}/v1/results"})
        assert [block async for block in api.results(own)] == []
        await api.close()
    assert asked == ["/v1/results"]
