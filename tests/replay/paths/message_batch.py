"""Every path through a batch job, each driven to its end by the same customer."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from temporalio.client import WorkflowHandle

from tallystick.contracts import MESSAGE_BATCH, TASK_QUEUE, batch_workflow_id
from tallystick.ledger import customers
from tests.batches.stand import Jobs, handle_of, open_jobs
from tests.replay.stage import Stage

Run = WorkflowHandle[Any, Any]
Path = Callable[[Jobs], Awaitable[Run]]
CREATE = "POST /v1/messages/batches?"


async def settled(jobs: Jobs) -> Run:
    run = await jobs.start("settled", 120)
    await jobs.ended("settled")
    return run


async def told_while_it_runs(jobs: Jobs) -> Run:
    """The first batches end while the last stands: the workflow hears of it in between."""
    await jobs.house.claude.order("rate_limited", match="/results?", times=3, retry_after=1)
    run = await jobs.start("told", 200)
    await jobs.ended("told")
    return run


async def sent_again(jobs: Jobs) -> Run:
    await jobs.house.claude.order("item_expired", match="<again:3>", times=2)
    await jobs.house.claude.order("item_errored", match="<again:60>")
    run = await jobs.start("again", 70)
    await jobs.ended("again")
    return run


async def malformed(jobs: Jobs) -> Run:
    run = await jobs.house.temporal.start_workflow(
        MESSAGE_BATCH, {"nonsense": 1}, id=batch_workflow_id("bad"), task_queue=TASK_QUEUE
    )
    with suppress(Exception):
        await run.result()
    return run


async def refused(jobs: Jobs) -> Run:
    run = await jobs.run("nobody-s")
    with suppress(Exception):
        await run.result()
    return run


async def parked_while_sending(jobs: Jobs) -> Run:
    await jobs.house.claude.order("spend_limit", match=CREATE)
    run = await jobs.start("parked", 20)
    await jobs.reaches("parked", "stuck")
    await run.signal("retry_now")
    await jobs.ended("parked")
    return run


async def parked_while_metering(jobs: Jobs) -> Run:
    ledger = jobs.house.ledger
    async with ledger.begin() as tx:
        known = await customers.get(tx, jobs.house.customer)
        assert known is not None
        await customers.set_stripe_customer(tx, jobs.house.customer, None)
    run = await jobs.start("unmapped", 20)
    await jobs.reaches("unmapped", "stuck")
    async with ledger.begin() as tx:
        await customers.set_stripe_customer(tx, jobs.house.customer, known.stripe_customer_id)
    await run.signal("retry_now")
    await jobs.ended("unmapped")
    return run


async def cancelled_by_update(jobs: Jobs) -> Run:
    run = await _running(jobs, "updated")
    await jobs.cancel("updated")
    await jobs.ended("updated")
    return run


async def cancelled_with_its_workflow(jobs: Jobs) -> Run:
    run = await _running(jobs, "cancelled")
    await handle_of(jobs.house.temporal, "cancelled").cancel()
    await jobs.ended("cancelled")
    return run


async def _running(jobs: Jobs, job_id: str) -> Run:
    await jobs.pace(items_per_second=0, in_flight=0)
    run = await jobs.start(job_id, 70)
    while (await jobs.progress(job_id)).in_flight < 70:
        await asyncio.sleep(0.05)
    return run


PATHS: dict[str, Path] = {
    path.__name__: path
    for path in (
        settled,
        told_while_it_runs,
        sent_again,
        malformed,
        refused,
        parked_while_sending,
        parked_while_metering,
        cancelled_by_update,
        cancelled_with_its_workflow,
    )
}


async def drive(stage: Stage) -> None:
    """Take each path with the same customer, in batches of 50."""
    database = await stage.new_database()
    async with open_jobs(stage.temporal, database, batch_requests=50) as jobs:
        for name, path in PATHS.items():
            await stage.keep(name, await path(jobs))
            await jobs.house.claude.disarm()
            await jobs.pace(items_per_second=50_000, in_flight=100)
