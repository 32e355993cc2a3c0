"""A job can be cancelled at any point: nothing more is sent, and what was served is billed."""

import asyncio

import pytest

from tallystick.contracts import BatchProgress
from tallystick.ledger import batches
from tallystick.ledger.batch_tables import BatchShard, ItemOutcome, ShardState
from tallystick.ledger.tables import Attempt, Outcome, UsageRecord
from tests.batches.stand import Jobs, handle_of
from tests.batches.test_jobs import must_tally

CREATE = "POST /v1/messages/batches?"


async def running(jobs: Jobs, job_id: str, items: int) -> BatchProgress:
    """Wait until so many items are at the provider."""
    async with asyncio.timeout(60):
        while (progress := await jobs.progress(job_id)).in_flight < items:
            await asyncio.sleep(0.05)
    return progress


async def test_before_anything_is_sent_nothing_is(jobs: Jobs) -> None:
    created = await jobs.house.claude.hold(match=CREATE)
    await jobs.start("at-once", 120)
    await jobs.house.claude.caught(created)
    told = await jobs.cancel("at-once")
    assert told.state == "canceling"
    await jobs.house.claude.release(created)
    ended = await jobs.ended("at-once")
    # The one create that was on its way: its batch is cancelled as soon as it is known.
    first, *others = await jobs.rows(BatchShard, job_id="at-once")
    assert (first["state"], [each["state"] for each in others]) == (ShardState.SETTLED, [])
    assert ended.succeeded + ended.canceled == 120
    assert ended.canceled >= 70
    assert len(await jobs.results("at-once")) == 120
    await must_tally(jobs)


@pytest.mark.parametrize("how", ["update", "workflow"])
async def test_while_it_runs_what_is_in_flight_is_still_served_and_billed(
    jobs: Jobs, how: str
) -> None:
    job_id = f"running-{how}"
    await jobs.pace(items_per_second=0, in_flight=9)
    await jobs.start(job_id, 100)
    await running(jobs, job_id, 100)
    if how == "update":
        assert (await jobs.cancel(job_id)).state == "canceling"
    else:
        await handle_of(jobs.house.temporal, job_id).cancel()
        async with asyncio.timeout(60):
            while (await jobs.progress(job_id)).state != "canceling":
                await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)  # what was asked for is asked for once, whoever looks meanwhile
    await jobs.pace(items_per_second=50_000)
    ended = await jobs.ended(job_id)
    assert (ended.state, ended.succeeded, ended.canceled) == ("ended", 18, 82)
    billed = [r for r in await jobs.rows(UsageRecord) if r["request_id"].startswith(f"{job_id}/")]
    assert len(billed) == 18
    results = await jobs.results(job_id)
    assert sum(each.outcome == ItemOutcome.CANCELED for each in results) == 82
    assert all(each.charge_nano_usd is None for each in results if each.outcome != "succeeded")
    await must_tally(jobs)


async def test_what_is_not_sent_yet_never_is(jobs: Jobs) -> None:
    # The first batch stands; the second create waits and is told to come again later.
    await jobs.pace(items_per_second=0, in_flight=0)
    second = await jobs.house.claude.hold(match=":60>")
    await jobs.start("half", 130)
    await jobs.house.claude.caught(second)
    await jobs.house.claude.order("rate_limited", match=CREATE, times=None, retry_after=1)
    await jobs.cancel("half")
    await jobs.house.claude.release(second)
    ended = await jobs.ended("half")
    assert (ended.succeeded, ended.canceled, ended.batches) == (0, 130, 1)
    shards = await jobs.rows(BatchShard, job_id="half")
    assert [shard["state"] for shard in shards] == [ShardState.SETTLED, ShardState.DROPPED]
    attempts = [a for a in await jobs.rows(Attempt) if a["request_id"].startswith("half/")]
    assert {a["outcome"] for a in attempts} == {Outcome.FAILED}
    assert len(attempts) == 100, "the third batch was not even planned"
    await must_tally(jobs)


async def test_a_create_without_an_answer_is_looked_for_all_the_same(jobs: Jobs) -> None:
    await jobs.pace(hidden_for=0.8, items_per_second=0, in_flight=0)
    await jobs.house.claude.order("undelivered", match=CREATE)
    await jobs.start("lost-and-cancelled", 30)
    async with asyncio.timeout(60):
        while not await jobs.rows(BatchShard, job_id="lost-and-cancelled", state=ShardState.SENT):
            await asyncio.sleep(0.05)
    await jobs.cancel("lost-and-cancelled")
    ended = await jobs.ended("lost-and-cancelled")
    assert ended.canceled == 30
    assert ended.batches == ended.batches_settled == 1
    await must_tally(jobs)


async def test_a_job_that_has_ended_stays_as_it_is(jobs: Jobs) -> None:
    await jobs.start("over", 10)
    ended = await jobs.ended("over")
    async with jobs.house.ledger.begin() as tx:
        assert ended.finished_at is not None
        await batches.note_cancelled(tx, "over", ended.finished_at)
    assert (await jobs.progress("over")).state == "ended"
