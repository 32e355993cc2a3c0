"""What idle billing cycles cost: how long starting them takes, and what they are on the servers.

The accounts are opened in the ledger many at a time, as if Stripe had been told of each, so a cycle
has nothing to do until its first period ends. Each is started as any news would start it. It is
idle once its search attribute says that it is active: it says so in the very task in which it
begins to wait. What the servers hold is read from their own databases before and after; the
difference is the cycles', with their accounts. One more cycle, started before, has warmed the
worker up.
"""

import asyncio
import sqlite3
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
import psycopg
from psycopg.sql import SQL, Identifier
from rich.console import Console
from rich.progress import Progress
from sqlalchemy import insert
from temporalio.client import Client as TemporalClient

from activities.waking import wake
from tallystick.contracts import BILLING_CYCLE, News, cycle_workflow_id
from tallystick.ledger.account_tables import BillingAccount
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Customer
from tallystick.local import LocalStack, local_stack
from tallystick.settings import Settings
from tallystick.temporal import connect_temporal

LANES = 50
"""Cycles that are being started at a time."""
SAMPLE = 50
"""Cycles whose history is measured; all are alike."""
REST = 65.0
"""Seconds without change after which a server has come to rest: it clears away the tasks that are
done once a minute."""

Figures = list[tuple[str, float, str]]
Tell = Callable[[int], None]
"""Is told how many are done."""


@dataclass(frozen=True)
class Held:
    """What a database holds: rows and bytes by table, and its size in bytes."""

    rows: dict[str, int]
    bytes: dict[str, int]
    size: int

    def since(self, before: "Held") -> "Held":
        """Return what came on top of what was held before, tables without a new row left out."""
        more = {name: rows - before.rows.get(name, 0) for name, rows in self.rows.items()}
        rows = {name: new for name, new in sorted(more.items()) if new > 0}
        held = {name: self.bytes[name] - before.bytes.get(name, 0) for name in rows}
        return Held(rows, held, self.size - before.size)


def in_sqlite(file: Path) -> Held:
    """Read what Temporal holds; a table's bytes are its data alone, without pages and indexes."""
    rows: dict[str, int] = {}
    held: dict[str, int] = {}
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        # Virtual tables show again what their own tables hold.
        tables = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE '% VIRTUAL %'"
        )
        for (table,) in tables.fetchall():
            columns = connection.execute("SELECT name FROM pragma_table_info(?)", [table])
            length = " + ".join(
                f'coalesce(length(CAST("{column}" AS BLOB)), 0)' for (column,) in columns
            )
            rows[table], held[table] = connection.execute(
                f'SELECT count(*), coalesce(sum({length}), 0) FROM "{table}"'  # noqa: S608
            ).fetchone()
        ((pages,), (page_size,)) = (
            connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size")
        )
    return Held(rows, held, pages * page_size)


def in_postgres(url: str) -> Held:
    """Read what the ledger holds; a table's bytes are all of its pages and indexes."""
    rows: dict[str, int] = {}
    held: dict[str, int] = {}
    plain = url.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(plain) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for (table,) in tables.fetchall():
            measured = SQL("SELECT count(*), pg_total_relation_size(%s) FROM {}")
            found = connection.execute(measured.format(Identifier(table)), [table]).fetchone()
            rows[table], held[table] = found or (0, 0)
        size = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    return Held(rows, held, size[0] if size else 0)


@dataclass(frozen=True)
class Effort:
    """What a process has cost so far: CPU time in seconds, and memory in MB."""

    seconds: float
    memory: float

    @classmethod
    def of(cls, process: Process) -> "Effort":
        """Look at a running process."""
        looked_at = psutil.Process(process.pid)
        times = looked_at.cpu_times()
        return cls(times.user + times.system, round(looked_at.memory_info().rss / 1e6, 1))


class Yard:
    """The servers, the worker, and cycles on them."""

    def __init__(self, local: LocalStack, worker: Process, temporal: TemporalClient):
        self._local, self._worker, self._temporal = local, worker, temporal
        self._database = local.home / "temporal" / "temporal.db"

    async def open(self, names: Sequence[str]) -> None:
        """Open accounts in which nothing is due before a month has passed."""
        now = datetime.now(UTC).replace(second=0, microsecond=0)
        ledger = Ledger(self._local.database_url, pool_size=1)
        async with ledger.begin() as tx:
            await tx.execute(
                insert(Customer),
                [{"customer_id": name, "name": name, "plan": "pass-through"} for name in names],
            )
            await tx.execute(
                insert(BillingAccount),
                [
                    {
                        "customer_id": name,
                        "anchor": now,
                        "time_zone": "UTC",
                        "closed_until": now,
                        "invoiced_until": now,
                        "stripe_subscription_id": f"sub_{name}",
                        "aligned_plan": "pass-through",
                        "opened_at": now,
                    }
                    for name in names
                ],
            )
        await ledger.close()

    async def start(self, names: Sequence[str], lanes: int, tell: Tell) -> None:
        """Start the cycles of accounts that are open."""
        waiting = iter(names)
        started = 0

        async def lane() -> None:
            nonlocal started
            for name in waiting:
                await wake(self._temporal, name, News())
                started += 1
                tell(started)

        await asyncio.gather(*(lane() for _ in range(lanes)))

    async def idle(self, count: int, tell: Tell) -> None:
        """Wait until so many cycles have nothing to do."""
        wanted = f"WorkflowType = '{BILLING_CYCLE}' AND BillingState = 'active'"
        while (idle := (await self._temporal.count_workflows(wanted)).count) < count:
            assert self._worker.returncode is None, "the worker has ended"
            tell(idle)
            await asyncio.sleep(1)
        tell(idle)

    async def at_rest(self, rest: float) -> None:
        """Wait until no table of the Temporal server has won or lost a row for `rest` seconds."""
        rows, since = in_sqlite(self._database).rows, time.monotonic()
        while time.monotonic() - since < rest:
            await asyncio.sleep(min(rest, 5))
            if (now := in_sqlite(self._database).rows) != rows:
                rows, since = now, time.monotonic()

    async def history(self, names: Sequence[str]) -> tuple[float, float]:
        """Return how many events and bytes the histories of these accounts have, on average."""
        events: list[int] = []
        sizes: list[int] = []
        for name in names:
            handle = self._temporal.get_workflow_handle(cycle_workflow_id(name))
            info = (await handle.describe()).raw_description.workflow_execution_info
            events.append(info.history_length)
            sizes.append(info.history_size_bytes)
        return statistics.mean(events), round(statistics.mean(sizes))

    def held(self) -> dict[str, Held]:
        """Return what each database holds."""
        return {
            "Temporal": in_sqlite(self._database),
            "PostgreSQL": in_postgres(self._local.database_url),
        }

    def efforts(self) -> dict[str, Effort]:
        """Return what each process has cost so far."""
        server = self._local.temporal.process
        return {"worker": Effort.of(self._worker), "Temporal server": Effort.of(server)}


async def bench(count: int, lanes: int = LANES, *, rest: float = REST) -> Figures:
    """Return figures: what was measured, how much it is, and what it should be.

    Args:
        count: cycles.
        lanes: of which so many are being started at a time.
        rest: seconds without change after which the Temporal server is taken to be at rest.
    """
    with tempfile.TemporaryDirectory(prefix="tallystick-") as home:
        async with local_stack(Settings(home=Path(home), database_url=None)) as local:
            worker = await local.start_worker()
            yard = Yard(local, worker, await connect_temporal(local.temporal.address))
            first, *others = [f"bench-{number}" for number in range(count + 1)]
            await yard.open([first])
            await yard.start([first], lanes, _nobody)
            await yard.idle(1, _nobody)
            return await _measure(yard, others, lanes, rest)


async def _measure(yard: Yard, names: Sequence[str], lanes: int, rest: float) -> Figures:
    count = len(names)
    held, efforts = yard.held(), yard.efforts()
    await yard.open(names)
    with Progress(console=Console(file=sys.stderr)) as progress:

        def bar(words: str) -> Tell:
            task = progress.add_task(words, total=count)
            return lambda done: progress.update(task, completed=done)

        starting, waiting = bar("started"), bar("idle")
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            group.create_task(yard.idle(count + 1, lambda done: waiting(done - 1)))
            await yard.start(names, lanes, starting)
            started = time.perf_counter() - began
        settled = time.perf_counter() - began
        spent = yard.efforts()
        progress.console.print("waiting for the server to come to rest")
        await yard.at_rest(rest)
    events, size = await yard.history(names[:SAMPLE])
    return [
        ("cycles", count, "-"),
        ("seconds until all were started (this machine)", round(started, 1), "-"),
        ("started a second (this machine)", round(count / started, 1), "-"),
        ("seconds until all were idle (this machine)", round(settled, 1), "-"),
        ("idle a second (this machine)", round(count / settled, 1), "-"),
        ("history events a cycle", events, "-"),
        ("history bytes a cycle", size, "-"),
        *(
            figure
            for process, effort in spent.items()
            for figure in _of_process(process, efforts[process], effort, count)
        ),
        *(
            figure
            for server, now in yard.held().items()
            for figure in _of_database(server, now.since(held[server]), count)
        ),
    ]


def _of_process(name: str, before: Effort, after: Effort, count: int) -> Figures:
    return [
        (f"{name}, CPU ms a cycle", round((after.seconds - before.seconds) / count * 1e3, 1), "-"),
        (f"{name}, MB before", before.memory, "-"),
        (f"{name}, MB after", after.memory, "-"),
    ]


def _of_database(name: str, held: Held, count: int) -> Figures:
    return [
        (f"{name}, rows a cycle", round(sum(held.rows.values()) / count, 2), "-"),
        (f"{name}, bytes a cycle in tables", round(sum(held.bytes.values()) / count), "-"),
        (f"{name}, bytes a cycle of the database's size", round(held.size / count), "-"),
        (f"{name}, MB of the database's size", round(held.size / 1e6, 1), "-"),
        *(
            figure
            for table, rows in held.rows.items()
            for figure in (
                (f"{name}, rows in {table}", rows, "-"),
                (f"{name}, bytes in {table}", held.bytes[table], "-"),
            )
        ),
    ]


def _nobody(_: int) -> None:
    """Be told of progress, and show it to nobody."""
