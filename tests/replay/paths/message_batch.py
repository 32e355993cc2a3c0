"""Every path through a batch job: served, sent again in part, cancelled, and never submitted."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from temporalio.client import WorkflowFailureError, WorkflowHandle

from tests.batches.stand import Jobs, open_jobs
from tests.replay.stage import Stage

Run = WorkflowHandle[Any, Any]
Path = Callable[[Jobs], Awaitable[Run]]


async def served(jobs: Jobs) -> Run:
    run = await jobs.start("served", 60)
    assert (await jobs.ended("served")).succeeded == 60
    return run


async def sent_again_in_part(jobs: Jobs) -> Run:
    await jobs.house.claude.order("item_expired", match="<again:3>", times=1)
    run = await jobs.start("again", 60)
    assert (await jobs.ended("again")).succeeded == 60
    return run


async def cancelled(jobs: Jobs) -> Run:
    await jobs.pace(items_per_second=0, in_flight=5)
    run = await jobs.start("cancelled", 60)
    async with asyncio.timeout(60):
        while (await jobs.progress("cancelled")).in_flight < 60:
            await asyncio.sleep(0.05)
    await jobs.cancel("cancelled")
    await jobs.pace(items_per_second=50_000, in_flight=100)
    await jobs.ended("cancelled")
    return run


async def never_submitted(jobs: Jobs) -> Run:
    run = await jobs.run("nobody-s")
    with suppress(WorkflowFailureError):
        await run.result()
    return run


PATHS: dict[str, Path] = {
    path.__name__: path for path in (served, sent_again_in_part, cancelled, never_submitted)
}


async def drive(stage: Stage) -> None:
    """Take each path in the same house."""
    async with open_jobs(stage.temporal, await stage.new_database(), batch_requests=50) as jobs:
        for name, path in PATHS.items():
            await stage.keep(name, await path(jobs))
