"""The content of a batch's requests: kept as that of single ones, from what the job has of them."""

from datetime import timedelta

from sqlalchemy import update
from temporalio.client import Client as TemporalClient
from temporalio.testing import ActivityEnvironment

from activities.payloads import PayloadActivities
from tallystick.contracts import RequestKey
from tallystick.ledger import batch_results
from tallystick.ledger.batch_tables import BatchJob
from tests.batches.stand import Jobs, message_of, open_jobs, params_of
from tests.contents.stand import keep, kept, stored

ITEMS = 3


async def test_items_are_kept_where_it_is_switched_on(
    temporal: TemporalClient, database_url: str
) -> None:
    async with open_jobs(temporal, database_url, "batched") as jobs:
        ledger = jobs.house.ledger
        await jobs.start("unkept", ITEMS)
        await jobs.ended("unkept")
        assert await stored(ledger) == []
        await keep(ledger, "batched", 30)
        await jobs.start("kept", ITEMS)
        await jobs.ended("kept")
        assert len(await stored(ledger)) == ITEMS
        for number, result in enumerate(await jobs.results("kept")):
            found = await kept(
                ledger, RequestKey(customer_id="batched", request_id=result.request_id)
            )
            assert found is not None
            params, line = found
            assert params == params_of(number, "kept")
            assert line["result"]["message"] == message_of(result)


async def test_results_go_a_while_after_their_job_has_ended_or_at_once_when_erased(
    temporal: TemporalClient, database_url: str
) -> None:
    async with open_jobs(temporal, database_url, "fetched") as jobs:
        ledger = jobs.house.ledger
        sweep = PayloadActivities(ledger, temporal).sweep_payloads
        for job_id in ("old", "new"):
            await jobs.start(job_id, ITEMS)
            await jobs.ended(job_id)
        assert await ActivityEnvironment().run(sweep) == 0
        async with ledger.begin() as tx:
            ended = BatchJob.finished_at - batch_results.KEPT - timedelta(seconds=1)  # type: ignore[operator]
            await tx.execute(
                update(BatchJob).where(BatchJob.job_id == "old").values(finished_at=ended)  # type: ignore[arg-type]
            )
        assert await ActivityEnvironment().run(sweep) == ITEMS
        assert (await _said(jobs, "old"), await _said(jobs, "new")) == (0, ITEMS)
        assert await _gone(jobs) == {"old"}
        assert await ActivityEnvironment().run(sweep) == 0

        await jobs.pace(items_per_second=0)
        await jobs.start("running", ITEMS)
        async with ledger.begin() as tx:
            assert await batch_results.erase(tx, "nobody") == 0
            assert await batch_results.erase(tx, "fetched") == ITEMS
        assert await _gone(jobs) == {"old", "new"}
        await jobs.pace(items_per_second=50_000)
        await jobs.ended("running")
        assert await _said(jobs, "running") == ITEMS


async def _said(jobs: Jobs, job_id: str) -> int:
    """Return how many results of the job still say what was said; all of them are there."""
    results = await jobs.results(job_id)
    assert [result.outcome for result in results] == ["succeeded"] * ITEMS
    return sum(result.line is not None for result in results)


async def _gone(jobs: Jobs) -> set[str]:
    return {row["job_id"] for row in await jobs.rows(BatchJob) if row["results_gone_at"]}
