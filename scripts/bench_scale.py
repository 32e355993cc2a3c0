"""What one set of servers carries: volumes and settings, workers, and what is full first.

Three questions, in one run on one machine:

1. The day's volumes, asked for at ten times the mean of the day, as a busy hour does: what do
   answers cost in time beyond Claude's own, how busy is one worker, how often is Stripe called?
2. Claude takes two seconds, as it does in earnest: how does throughput grow with the calls that
   workers may have in flight, as more workers or as more slots in one?
3. Claude answers at once: what do a request's steps cost in CPU, in which process, and what does a
   second worker gain where they all share one machine?

CPU time is read from the system's own count for each process and its children, from before the
first request to after the last is metered, so a machine that is busy with something else changes
the times and not the shares. The stand-ins and the asking application run beside the rest and are
told apart.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from bench_batch import stripe_calls
from bench_cycles import Held, in_postgres, in_sqlite
from bench_load import add_customers, body, customer
from rich.console import Console
from rich.progress import Progress
from temporalio.client import Client as TemporalClient

from tallystick.client import Client
from tallystick.contracts import CLAUDE_REQUEST
from tallystick.embedded import POSTGRES_FOLDER, postgres_pid, stop_process
from tallystick.local import LocalStack, local_stack
from tallystick.sandbox.remote import Control
from tallystick.settings import Settings
from tallystick.temporal import connect_temporal

BUSY = 10
"""How much more than the day's mean a busy hour asks for."""
CLAUDE_TAKES = 2.0
"""Seconds of a call, in the first two questions."""
SLOTS = 8
"""Calls in flight of one worker in the second question: few enough that slots are what is full."""
CONCURRENCY = 100
"""Requests open at a time where Claude answers at once."""
_WARM_UP = 10
_PARTS = ("workers", "Temporal", "PostgreSQL", "stand-ins", "application")
_RUNNING = f"WorkflowType = '{CLAUDE_REQUEST}' AND ExecutionStatus = 'Running'"

Figures = list[tuple[str, float, str]]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """What some requests took: seconds each and in all, and CPU seconds by part."""

    taken: list[float]
    seconds: float
    cpu: Mapping[str, float]
    stripe_calls: int

    @property
    def count(self) -> int:
        return len(self.taken)

    @property
    def speed(self) -> float:
        """Answers a second."""
        return self.count / self.seconds

    def beyond(self, claude: float, quantile: float) -> float:
        """Return the milliseconds of an answer beyond Claude's own."""
        cuts = statistics.quantiles(self.taken, n=100, method="inclusive")
        return round((cuts[round(quantile * 100) - 1] - claude) * 1_000, 1)


class Plant:
    """The servers, and as many workers as a question wants."""

    def __init__(self, local: LocalStack, temporal: TemporalClient, claude: Control):
        self._local, self._temporal, self._claude = local, temporal, claude
        self._messages = Client(temporal).messages
        self._started = 0

    @asynccontextmanager
    async def working(self, workers: int, **settings: object) -> AsyncGenerator[None, None]:
        """Run so many workers with these settings, and have them warmed up."""
        environment = {name: str(value) for name, value in settings.items()}
        processes = [await self._local.start_worker(**environment) for _ in range(workers)]
        self._started += workers
        try:
            await self._local.until_working(self._started)
            await self.claude_takes(0)
            await self.at_once(_WARM_UP * workers, _WARM_UP)
            yield
        finally:
            await asyncio.gather(*(stop_process(each, patience=90) for each in processes))
            for each in processes:
                self._local.workers.remove(each)

    async def claude_takes(self, seconds: float) -> None:
        """Have Claude take so long from now on."""
        await self._claude.post("latency", {"seconds": seconds})

    async def paced(self, rate: float, seconds: float) -> Run:
        """Ask for `rate` requests a second, evenly, whatever becomes of those before."""

        async def ask_all() -> list[float]:
            async with asyncio.TaskGroup() as group:
                asked: list[asyncio.Task[float]] = []
                for _ in range(max(2, round(rate * seconds))):
                    asked.append(group.create_task(self._ask()))
                    await asyncio.sleep(1 / rate)
            return [task.result() for task in asked]

        return await self._measured(ask_all)

    async def at_once(self, count: int, concurrency: int) -> Run:
        """Ask for `count` requests, `concurrency` at a time."""

        async def ask_all() -> list[float]:
            left = iter(range(count))

            async def lane() -> list[float]:
                return [await self._ask() for _ in left]

            lanes = await asyncio.gather(*(lane() for _ in range(concurrency)))
            return [seconds for taken in lanes for seconds in taken]

        return await self._measured(ask_all)

    def held(self) -> dict[str, Held]:
        """Return what each database holds."""
        return {
            "PostgreSQL": in_postgres(self._local.database_url),
            "Temporal": in_sqlite(self._local.home / "temporal" / "temporal.db"),
        }

    def memory(self) -> float:
        """Return the megabytes of the largest worker."""
        return round(
            max(psutil.Process(each.pid).memory_info().rss for each in self._local.workers) / 1e6, 1
        )

    async def _ask(self) -> float:
        name = uuid.uuid4().hex
        began = time.perf_counter()
        await self._messages.create(customer_id=customer(name), request_id=name, **body(name))
        return time.perf_counter() - began

    async def _measured(self, ask_all: Callable[[], Awaitable[list[float]]]) -> Run:
        calls, cpu = await stripe_calls(self._local), self._cpu()
        began = time.perf_counter()
        taken = await ask_all()
        seconds = time.perf_counter() - began
        while (await self._temporal.count_workflows(_RUNNING)).count:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        spent = {part: after - cpu[part] for part, after in self._cpu().items()}
        return Run(taken, seconds, spent, await stripe_calls(self._local) - calls)

    def _cpu(self) -> dict[str, float]:
        local = self._local
        stand_ins = next(
            each.pid
            for each in psutil.Process().children()
            if "tallystick.sandbox" in each.cmdline()
        )
        pids = (
            [each.pid for each in local.workers],
            [local.temporal.process.pid],
            [postgres_pid(local.home / POSTGRES_FOLDER) or 0],
            [stand_ins],
        )
        spent = [sum(_cpu_seconds(pid) for pid in each) for each in pids]
        return dict(zip(_PARTS, [*spent, time.process_time()], strict=True))


def _cpu_seconds(pid: int) -> float:
    """Return what a process and its children, ended ones included, have computed."""
    process = psutil.Process(pid)
    seconds = sum(process.cpu_times()[:4])
    for child in process.children(recursive=True):
        try:
            seconds += sum(child.cpu_times()[:4])
        except psutil.NoSuchProcess:  # ended meanwhile; its parent answers for it next time
            continue
    return seconds


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    seconds: float = 60
    """That each of the volumes is asked for."""
    rounds: int = 8
    """How often each slot is filled where Claude takes its time; 0 leaves that question out."""
    requests: int = 800
    """Where it answers at once, for each number of workers."""
    linger: float = 30
    """Seconds that meter events wait for company, beside the default, at the volume in the
    middle."""
    fleets: tuple[int, ...] = (1, 2, 4)
    volumes: tuple[int, ...] = (1_000, 10_000, 100_000)
    """Requests a day."""


SHORT = Extent(seconds=1, rounds=0, requests=12, linger=0, fleets=(1,), volumes=(100_000,))
"""Shows that it works, and no more."""


async def bench(extent: Extent) -> Figures:
    """Return figures: what was measured, how much it is, and what it should be."""
    with tempfile.TemporaryDirectory(prefix="tallystick-") as home:
        settings = Settings(home=Path(home), database_url=None)
        async with local_stack(settings) as local, httpx.AsyncClient(timeout=60) as http:
            await add_customers(local, settings)
            plant = Plant(
                local,
                await connect_temporal(local.temporal.address),
                Control(http, local.claude_url or ""),
            )
            with Progress(console=Console(file=sys.stderr)) as progress:
                task = progress.add_task("", total=len(extent.volumes) + 2 * len(extent.fleets) + 2)

                def say(what: str) -> None:
                    progress.update(task, description=what)
                    progress.advance(task)

                return [
                    ("cores of this machine", os.cpu_count() or 0, "-"),
                    *await _volumes(plant, extent, say),
                    *(await _waiting(plant, extent, say) if extent.rounds else []),
                    *await _computing(plant, extent, say),
                ]


async def _volumes(plant: Plant, extent: Extent, say: Say) -> Figures:
    figures: Figures = []
    async with plant.working(1):
        for volume in extent.volumes:
            say(f"{volume:,} a day")
            figures += await _volume(plant, f"{volume:,} a day", volume, extent.seconds)
    middle = extent.volumes[len(extent.volumes) // 2]
    async with plant.working(1, TALLYSTICK_METER_LINGER=extent.linger):
        name = f"{middle:,} a day, events linger {extent.linger:g} s"
        say(name)
        figures += await _volume(plant, name, middle, extent.seconds)
    return figures


async def _volume(plant: Plant, name: str, volume: int, seconds: float) -> Figures:
    await plant.claude_takes(CLAUDE_TAKES)
    run = await plant.paced(BUSY * volume / 86_400, seconds)
    servers = run.cpu["Temporal"] + run.cpu["PostgreSQL"]
    return [
        (f"{name}: requests asked for, {BUSY} times the day's mean", run.count, "-"),
        (f"{name}: p50 of an answer beyond Claude's time, ms", run.beyond(CLAUDE_TAKES, 0.5), "-"),
        (f"{name}: p95", run.beyond(CLAUDE_TAKES, 0.95), "-"),
        (f"{name}: cores of the worker", round(run.cpu["workers"] / run.seconds, 2), "-"),
        (f"{name}: cores of both servers", round(servers / run.seconds, 2), "-"),
        (f"{name}: memory of the worker, MB", plant.memory(), "-"),
        (
            f"{name}: calls to Stripe per 1,000 requests",
            round(run.stripe_calls * 1_000 / run.count),
            "-",
        ),
    ]


async def _waiting(plant: Plant, extent: Extent, say: Say) -> Figures:
    """Measure fleets, and the slots of the largest in one worker, against the calls alone."""
    figures: Figures = []
    largest = SLOTS * extent.fleets[-1]
    for workers, slots in [*((fleet, SLOTS) for fleet in extent.fleets), (1, largest)]:
        name = f"Claude takes {CLAUDE_TAKES:g} s, {workers} x {slots} slots"
        say(name)
        async with plant.working(workers, TALLYSTICK_CLAUDE_CONCURRENCY=slots):
            await plant.claude_takes(CLAUDE_TAKES)
            places = workers * slots
            # More are open than there are slots, so that one that becomes free is taken at once.
            run = await plant.at_once(places * extent.rounds, 2 * places)
        could = places / CLAUDE_TAKES
        figures += [
            (f"{name}: answers a second", round(run.speed, 1), "-"),
            (f"{name}: of what the slots allow", round(run.speed / could, 2), "-"),
        ]
    return figures


async def _computing(plant: Plant, extent: Extent, say: Say) -> Figures:
    figures: Figures = []
    alone = 0.0
    before = after = plant.held()
    for workers in extent.fleets:
        name = f"Claude answers at once, {workers} workers"
        say(name)
        async with plant.working(workers):
            before = plant.held()
            run = await plant.at_once(extent.requests, CONCURRENCY)
            after = plant.held()
        alone = alone or run.speed
        figures += [
            (f"{name}: answers a second", round(run.speed, 1), "-"),
            (f"{name}: of one worker's", round(run.speed / alone, 2), "-"),
            (f"{name}: cores busy", round(sum(run.cpu.values()) / run.seconds, 2), "-"),
            *(
                (f"{name}: CPU ms a request, {part}", round(spent / run.count * 1_000, 1), "-")
                for part, spent in run.cpu.items()
            ),
        ]
    figures += [
        (
            f"{server}: kB a request",
            round((after[server].size - held.size) / extent.requests / 1e3, 1),
            "-",
        )
        for server, held in before.items()
    ]
    return figures
