"""Workers that are killed every few seconds, and a provider that fails in every way it can.

Which faults strike follows from a seed; when a worker dies is the machine's. Whatever that was:
each item is billed at most once, every one that was served is, and the three records tally.
"""

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tallystick.contracts import BatchProgress
from tallystick.ledger.batches import NewJob
from tallystick.ledger.database import Ledger
from tests.batches.stand import handle_of, items_of, start, submit
from tests.batches.tally import differences
from tests.crash.drill import Drill, drill

FAULTS = {
    "undelivered": 0.1,
    "reset": 0.05,
    "error_529": 0.05,
    "rate_limited": 0.05,
    "item_errored": 0.02,
    "item_expired": 0.02,
    "item_invalid": 0.01,
    "refusal": 0.02,
    "cut_results": 0.3,
    "truncated_results": 0.2,
}
STRIPE_FAULTS = {"no_answer": 0.1, "server_error": 0.05, "rate_limited": 0.05}
QUICK = {
    "TALLYSTICK_BATCH_POLL": "0.5",
    "TALLYSTICK_BATCH_LOOKED_FOR": "6",
    "TALLYSTICK_SHUTDOWN_GRACE": "1",
}


@pytest_asyncio.fixture
async def stack() -> AsyncIterator[Drill]:
    with tempfile.TemporaryDirectory(prefix="tallystick-", ignore_cleanup_errors=True) as home:
        async with drill(Path(home)) as running:
            yield running


@pytest.mark.parametrize(
    ("items", "per_batch", "deaths", "patience"),
    [
        (3_000, 500, 5, 400),
        pytest.param(100_000, 10_000, 60, 3_000, marks=pytest.mark.long),
    ],
)
async def test_workers_may_be_killed_every_few_seconds(
    stack: Drill, items: int, per_batch: int, deaths: int, patience: float
) -> None:
    await stack.claude.post("faults", {"rates": FAULTS, "seed": items})
    await stack.stripe.post("faults", {"rates": STRIPE_FAULTS, "seed": items})
    # Slow enough for a death to find batches at every stage.
    await stack.claude.post("batches", {"items_per_second": per_batch / 3, "hidden_for": 1})
    ledger = Ledger(stack.stack.database_url, pool_size=2)
    try:
        await submit(ledger, NewJob("job", "acme"), items_of("job", items))
        environment = {**QUICK, "TALLYSTICK_BATCH_REQUESTS": str(per_batch)}
        for _ in range(2):
            await stack.start_worker(**environment)
        await start(stack.temporal, "job")
        killing = asyncio.create_task(kill(stack, deaths, environment))
        ended: BatchProgress = await asyncio.wait_for(
            handle_of(stack.temporal, "job").result(), patience
        )
        killing.cancel()
        assert ended.succeeded + ended.errored + ended.expired == items
        assert ended.succeeded > items * 0.9
        history = await handle_of(stack.temporal, "job").fetch_history()
        assert len(history.events) < 200
        assert await differences(ledger, stack.claude, stack.stripe) == []
    finally:
        await ledger.close()


async def kill(stack: Drill, deaths: int, environment: dict[str, str]) -> None:
    """Kill one worker after the other, and start another for each."""
    dice = random.Random(1)
    for _ in range(deaths):
        await asyncio.sleep(dice.uniform(2, 5))
        await stack.stack.kill_worker(dice.choice(stack.stack.workers))
        await stack.start_worker(**environment)
