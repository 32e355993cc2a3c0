"""Workers that are killed every few seconds, and a provider that fails in every way it can.

Which faults strike follows from a seed; when a worker dies is the machine's. Whatever that was:
each item is billed at most once, every one that was served is, and the three records tally.
"""

import asyncio
import random
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

from tallystick.contracts import BatchProgress
from tallystick.ledger import batches
from tallystick.ledger.batches import NewJob
from tallystick.ledger.database import Ledger
from tallystick.money import plain, total
from tests.batches.stand import handle_of, items_of, start, submit
from tests.batches.tally import differences
from tests.crash.drill import Drill, drill

FAULTS = {
    "undelivered": 0.1,
    "reset": 0.05,
    "error_529": 0.05,
    "item_invalid": 0.01,
    "refusal": 0.02,
    "cut_results": 0.1,
    "truncated_results": 0.1,
}
HARSHER = {
    **FAULTS,
    "rate_limited": 0.05,
    "item_errored": 0.02,
    "item_expired": 0.02,
    "cut_results": 0.3,
    "truncated_results": 0.2,
}
"""More of what has to be waited for, and of what sends items into a second batch and a third."""
STRIPE_FAULTS = {"no_answer": 0.1, "server_error": 0.05, "rate_limited": 0.05}
QUICK = {
    "TALLYSTICK_BATCH_POLL": "0.5",
    "TALLYSTICK_BATCH_LOOKED_FOR": "6",
    "TALLYSTICK_SHUTDOWN_GRACE": "1",
}
WORKERS = 2


@dataclass
class Scene:
    """A stack under batch jobs: its ledger, the jobs' ids, and how many workers have died."""

    stack: Drill
    ledger: Ledger
    jobs: list[str]
    environment: dict[str, str]
    deaths: int = 0

    async def start_workers(self, count: int) -> None:
        await asyncio.gather(
            *(self.stack.start_worker(**self.environment) for _ in range(count)),
        )

    async def kill(self, *workers: Process) -> None:
        """Kill workers, and start as many others."""
        for worker in workers:
            await self.stack.stack.kill_worker(worker)
            self.deaths += 1
        await self.start_workers(len(workers))

    async def progress(self, job_id: str) -> BatchProgress:
        async with self.ledger.begin() as tx:
            return await batches.progress(tx, job_id, datetime.now(UTC))


async def all_at_once(scene: Scene) -> None:
    """Kill all workers when some, but not all, of the first job is billed."""
    while not (await scene.progress(scene.jobs[0])).succeeded:
        await asyncio.sleep(0.05)
    await scene.kill(*scene.stack.stack.workers)


async def one_every_few_seconds(scene: Scene) -> None:
    """Kill one worker after the other, without end."""
    dice = random.Random(1)
    while True:
        await asyncio.sleep(dice.uniform(2, 5))
        await scene.kill(dice.choice(scene.stack.stack.workers))


@pytest_asyncio.fixture
async def stack() -> AsyncIterator[Drill]:
    with tempfile.TemporaryDirectory(prefix="tallystick-", ignore_cleanup_errors=True) as home:
        async with drill(Path(home)) as running:
            yield running


@pytest.mark.parametrize(
    ("jobs", "items", "per_batch", "faults", "kill", "patience"),
    [
        # Jobs that begin one after the other, so that death finds each at another stage.
        (3, 600, 200, FAULTS, all_at_once, 180),
        pytest.param(
            1,
            100_000,
            10_000,
            HARSHER,
            one_every_few_seconds,
            3_600,
            marks=pytest.mark.long,
        ),
    ],
)
async def test_workers_may_be_killed_at_any_time(
    stack: Drill,
    jobs: int,
    items: int,
    per_batch: int,
    faults: dict[str, float],
    kill: Callable[[Scene], Awaitable[None]],
    patience: float,
) -> None:
    await stack.claude.post("faults", {"rates": faults, "seed": items})
    await stack.stripe.post("faults", {"rates": STRIPE_FAULTS, "seed": items})
    # Slow enough for death to find batches at every stage.
    await stack.claude.post("batches", {"items_per_second": per_batch / 2, "hidden_for": 1})
    ledger = Ledger(stack.stack.database_url, pool_size=2)
    scene = Scene(
        stack,
        ledger,
        [f"job-{number}" for number in range(jobs)],
        {**QUICK, "TALLYSTICK_BATCH_REQUESTS": str(per_batch)},
    )
    for job_id in scene.jobs:
        await submit(ledger, NewJob(job_id, "acme"), items_of(job_id, items))
    await scene.start_workers(WORKERS)
    began = time.monotonic()
    killing: asyncio.Future[None] | None = None
    try:
        async with asyncio.timeout(patience):
            for job_id in scene.jobs:
                await start(stack.temporal, job_id)
                killing = killing or asyncio.ensure_future(kill(scene))
                await asyncio.sleep(1)
            ended = [await handle_of(stack.temporal, each).result() for each in scene.jobs]
        assert scene.deaths >= WORKERS
        for job in ended:
            assert job.succeeded + job.errored + job.expired == items
            assert job.succeeded > items * 0.9
            history = await handle_of(stack.temporal, job.job_id).fetch_history()
            assert len(history.events) < 200
        assert await differences(ledger, stack.claude, stack.stripe) == []
        await report(scene, ended, time.monotonic() - began)
    finally:
        if killing is not None:
            killing.cancel()
        await ledger.close()


async def report(scene: Scene, ended: list[BatchProgress], seconds: float) -> None:
    """Print what there was: whoever runs the long form wants to know."""
    claude, stripe = await scene.stack.claude.get("totals"), await scene.stack.stripe.get("totals")
    print(
        f"\n{sum(job.items for job in ended):,} items in {seconds:.0f} s, {scene.deaths} workers "
        f"killed: {sum(job.succeeded for job in ended):,} succeeded, "
        f"{sum(job.errored + job.expired for job in ended):,} did not, in "
        f"{sum(job.batches for job in ended)} batches"
        f"\nledger: cost ${plain(total(job.cost_usd for job in ended))}, charge "
        f"${plain(total(job.charge_usd for job in ended))}"
        f"\nClaude: {claude['billable']}, {claude['not_served']}"
        f"\nStripe: {stripe['by_event_name']}"
    )
