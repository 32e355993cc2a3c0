"""The parts of `bench.py batch`: a job of many requests, and the least that its results could cost.

Two jobs, one a tenth of the other, each with a worker process of its own, so that the peak memory
of one can be held against the other's. Results are settled from when the whole job is at Claude,
whose stand-in serves it at once, until the last item is billed; metering goes on beside that and is
waited for. The yardstick decodes each line of the same files of results and COPYs it into a table
of two columns, and nothing else: what any program has to do that keeps what came of a batch. It is
laid twice, to the files on disk and to the files as ours gets them, over HTTP while the stand-in
writes them on the same cores: what lies between the two is the stand-in's work and none of ours.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil
import psycopg
from pydantic_core import from_json
from temporalio.client import Client as TemporalClient

from activities.stripe_catalog import create_customer
from activities.stripe_clients import stripe_client
from tallystick.contracts import BatchProgress, batch_workflow_id
from tallystick.documents import Asked
from tallystick.embedded import stop_process
from tallystick.ledger import batch_shards, batches, customers
from tallystick.ledger.batch_tables import ShardState
from tallystick.ledger.batches import NewJob
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Customer
from tallystick.local import LocalStack, local_stack
from tallystick.payloads.columns import ColumnSeal
from tallystick.plans.guards import Limits
from tallystick.settings import SANDBOX_CLAUDE_KEY, Settings
from tallystick.submission import start, store
from tallystick.temporal import connect_temporal

CUSTOMER = "bench"
MODEL = "claude-haiku-5-5"
WORKER = {"TALLYSTICK_BATCH_POLL": "1"}
SMALLER = 10
"""How many times fewer items the job has that memory is compared with."""
PATIENCE = 3_600
"""Seconds for one job; far more than it takes."""
_LOOK_EVERY = 0.1
_MB = 1_000_000


@dataclass(frozen=True)
class Asks:
    """What a job asks for: short prompts, all different."""

    job_id: str
    count: int

    def __iter__(self) -> Iterator[Asked]:
        for number in range(self.count):
            text = f"<{self.job_id}:{number}> What is a tally stick, and who kept which half of it?"
            params = {
                "model": MODEL,
                "max_tokens": 64,
                "messages": [{"role": "user", "content": text}],
            }
            yield Asked(params, document=f"page-{number}.txt")


@dataclass(frozen=True)
class Ran:
    """How one job went: its end, seconds of settling, and what it took.

    `peak` is in bytes of its worker, `events` are those of the workflow's history.
    """

    progress: BatchProgress
    settling: float
    peak: int
    events: int
    stripe_calls: int


class Memory:
    """The most memory that a process has had since it is watched."""

    def __init__(self, pid: int):
        self.peak = 0
        self._process = psutil.Process(pid)

    async def watch(self) -> None:
        """Look, again and again."""
        while True:
            self.peak = max(self.peak, self._process.memory_info().rss)
            await asyncio.sleep(_LOOK_EVERY)


async def bench(items: int) -> list[tuple[str, float, str]]:
    """Return figures: what was measured, how much it is, and what it should be."""
    with tempfile.TemporaryDirectory(prefix="tallystick-") as home:
        settings = Settings(home=Path(home), database_url=None)
        async with local_stack(settings) as local:
            ledger = Ledger(local.database_url, pool_size=2)
            try:
                await _add_customer(local, settings, ledger)
                small = await _run(local, settings, ledger, Asks("small", items // SMALLER))
                large = await _run(local, settings, ledger, Asks("large", items))
                async with ledger.begin() as tx:
                    settled = await batch_shards.in_state(tx, "large", ShardState.SETTLED)
            finally:
                await ledger.close()
            _say("the yardstick")
            claude = Claude(local.claude_url or "", [str(shard.batch_id) for shard in settled])
            url, folder = local.database_url, Path(home)
            fetched = items / await asyncio.to_thread(decode_and_copy, url, claude.files())
            paths = await asyncio.to_thread(claude.download, folder)
            bare = items / await asyncio.to_thread(decode_and_copy, url, on_disk(paths))
    ours = large.progress.succeeded / large.settling
    return [
        ("items", items, "-"),
        ("items without a reply", items - large.progress.succeeded, "0"),
        ("results settled a second, ours / decode and COPY", round(ours / bare, 3), "0.3 or more"),
        ("the same, ours / fetch, decode and COPY", round(ours / fetched, 3), "-"),
        (f"worker's peak at {items // SMALLER:,} items, MB", round(small.peak / _MB), "below 400"),
        (f"worker's peak at {items:,} items, MB", round(large.peak / _MB), "below 400"),
        ("growth of the peak, %", round(100 * (large.peak / small.peak - 1), 1), "20 or less"),
        ("history events of the job", large.events, "below 200"),
        ("Stripe HTTP calls of the job", large.stripe_calls, "60 or fewer"),
        ("our results a second (this machine)", round(ours), "-"),
        ("bare results a second (this machine)", round(bare), "-"),
        ("bare results a second, fetched (this machine)", round(fetched), "-"),
    ]


async def _run(local: LocalStack, settings: Settings, ledger: Ledger, asked: Asks) -> Ran:
    """Run one job on a worker of its own, to its last meter event."""
    _say(f"{asked.count:,} items: copying them in")
    limits, now = Limits(settings.max_input_tokens, settings.max_cost_usd), datetime.now(UTC)
    seal = ColumnSeal(settings.keyring)
    job = await store(ledger, NewJob(asked.job_id, CUSTOMER), asked, limits, now, seal=seal)
    temporal = await connect_temporal(local.temporal.address)
    before = await stripe_calls(local)
    worker = await local.start_worker(**WORKER)
    memory = Memory(worker.pid)
    watching = asyncio.create_task(memory.watch())
    try:
        _say(f"{asked.count:,} items: running")
        await start(temporal, job)
        async with asyncio.timeout(PATIENCE):
            settling = await _settling(ledger, job.job_id)
            _say(f"{asked.count:,} items: metering")
            progress, events = await _ended(temporal, job.job_id)
    finally:
        watching.cancel()
    calls = await stripe_calls(local) - before
    local.workers.remove(worker)
    await stop_process(worker, patience=90)
    return Ran(progress, settling, memory.peak, events, calls)


async def _settling(ledger: Ledger, job_id: str) -> float:
    """Return the seconds from when all is at the provider until all is billed."""
    sent = 0.0
    while True:
        async with ledger.begin() as tx:
            progress = await batches.progress(tx, job_id, datetime.now(UTC))
        if not sent and not progress.waiting:
            sent = time.perf_counter()
        if progress.done == progress.items:
            return time.perf_counter() - sent
        await asyncio.sleep(_LOOK_EVERY)


async def _ended(temporal: TemporalClient, job_id: str) -> tuple[BatchProgress, int]:
    """Wait for the workflow's end; returns its result and how many events its history has."""
    handle = temporal.get_workflow_handle(batch_workflow_id(job_id), result_type=BatchProgress)
    progress = await handle.result()
    info = (await handle.describe()).raw_description.workflow_execution_info
    return progress, info.history_length


@dataclass(frozen=True)
class Claude:
    """The stand-in at its address, and batches that it has the results of."""

    url: str
    batch_ids: Sequence[str]

    def files(self) -> Iterator[Iterator[bytes]]:
        """Yield the lines of each file of results, while it is written."""
        headers = {
            "Authorization": f"Bearer {SANDBOX_CLAUDE_KEY}",
            "anthropic-version": "2023-06-01",
        }
        with httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE) as http:
            for batch_id in self.batch_ids:
                with http.stream("GET", f"/v1/messages/batches/{batch_id}/results") as answer:
                    yield _lines(answer.raise_for_status().iter_bytes())

    def download(self, folder: Path) -> list[Path]:
        """Put the files on the disk."""
        paths = [folder / f"{batch_id}.jsonl" for batch_id in self.batch_ids]
        for path, lines in zip(paths, self.files(), strict=True):
            with path.open("wb") as file:
                file.writelines(lines)
        return paths


def _lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        yield from (line + b"\n" for line in whole)


def on_disk(paths: Sequence[Path]) -> Iterator[Iterator[bytes]]:
    """Yield the lines of each file."""
    for path in paths:
        with path.open("rb") as lines:
            yield lines


def decode_and_copy(database_url: str, files: Iterator[Iterator[bytes]]) -> float:
    """Decode each line and keep it in a table of two columns; returns the seconds that took."""
    url = database_url.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(url) as connection:
        connection.execute("DROP TABLE IF EXISTS bare_results")
        connection.execute("CREATE TABLE bare_results (custom_id text PRIMARY KEY, line text)")
        connection.commit()
        began = time.perf_counter()
        for lines in files:
            with (
                connection.cursor() as cursor,
                cursor.copy("COPY bare_results (custom_id, line) FROM STDIN") as copy,
            ):
                for line in lines:
                    copy.write_row((from_json(line)["custom_id"], line.decode()))
            connection.commit()
        return time.perf_counter() - began


async def stripe_calls(local: LocalStack) -> int:
    """Return how many calls the stand-in for Stripe has had."""
    async with httpx.AsyncClient(timeout=60) as http:
        totals = (await http.get(f"{local.stripe_url}/_sandbox/totals")).json()
    return sum(totals["calls"].values())


async def _add_customer(local: LocalStack, settings: Settings, ledger: Ledger) -> None:
    async with stripe_client(local.endpoints(settings), settings) as stripe:
        mapped = await create_customer(stripe, CUSTOMER, CUSTOMER)
    row = Customer(
        customer_id=CUSTOMER, name=CUSTOMER, plan="pass-through", stripe_customer_id=mapped
    )
    async with ledger.begin() as tx:
        await customers.add(tx, row)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
