"""Servers that tests share: a real PostgreSQL and a real Temporal, started once a session.

Each test gets a database of its own, copied from a migrated template, so no test can lean on what
another left behind. `scripts/test` runs several sessions side by side, since most tests wait more
than they compute; each has servers of its own, and the tests of one file stay in one session.
"""

import gc
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio
from temporalio.client import Client as TemporalClient

from tallystick.embedded import TemporalServer, embedded_postgres, embedded_temporal
from tallystick.ledger import setup
from tallystick.ledger.database import Ledger
from tallystick.temporal import connect_temporal

_numbers = itertools.count(1)

LONGEST = (
    "cycles", "crash", "chaos", "requests", "cli", "guards", "demo", "reconciliation", "batches",
    "workers", "bench", "fairness", "payloads", "wallet",
)  # fmt: skip
"""Folders that take the most time: begun first, none of them is what all wait for in the end."""

ROOM = 2**31
"""Bytes that must be free in memory before the servers of a session keep their data there. They
take less than a fifth of it, but each of several sessions looks for itself."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Import all tests without looking for garbage among what stays for the whole run."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    turns = {name: turn for turn, name in enumerate(LONGEST)}
    here = Path(__file__).parent
    items.sort(key=lambda item: turns.get(item.path.relative_to(here).parts[0], len(turns)))


@pytest.fixture(autouse=True)
def _no_stray_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own keys and addresses out of the tests."""
    for name in (
        "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "ANTHROPIC_ADMIN_KEY", "STRIPE_API_KEY",
        "STRIPE_API_BASE", "STRIPE_METER_EVENTS_BASE", "STRIPE_WEBHOOK_SECRET", "DATABASE_URL",
        "TEMPORAL_ADDRESS", "TALLYSTICK_SANDBOX", "TALLYSTICK_HOME",
        "TALLYSTICK_PAYLOAD_KEYS",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL server whose database `template_tallystick` is set up."""
    # Not in pytest's own temporary folder: a socket's path has a length limit, and every pytest
    # that starts closes that folder to other users, under which PostgreSQL runs for root.
    with _folder() as folder, embedded_postgres(folder / "data") as url:
        _execute(url, "ALTER SYSTEM SET fsync = off")  # nobody kills this one
        _execute(url, "ALTER SYSTEM SET max_wal_size = '256MB'")
        _execute(url, "SELECT pg_reload_conf()")
        _execute(url, "CREATE DATABASE template_tallystick")
        setup.prepare(_database(url, "template_tallystick"))
        yield url


@pytest.fixture
def database_url(postgres: str) -> Iterator[str]:
    """The address of a database of the test's own."""
    name = f"test_{next(_numbers)}"
    _execute(postgres, f"CREATE DATABASE {name} TEMPLATE template_tallystick")
    yield _database(postgres, name)
    _execute(postgres, f"DROP DATABASE {name} WITH (FORCE)")


@pytest_asyncio.fixture
async def ledger(database_url: str) -> AsyncIterator[Ledger]:
    """The ledger in a database of the test's own."""
    ledger = Ledger(database_url)
    yield ledger
    await ledger.close()


@pytest_asyncio.fixture(scope="session")
async def temporal_server() -> AsyncIterator[TemporalServer]:
    """A real Temporal server with our search attributes and fairness on."""
    with _folder() as folder:
        async with embedded_temporal(folder) as server:
            yield server


@pytest_asyncio.fixture
async def temporal(temporal_server: TemporalServer) -> TemporalClient:
    """A client of it with the product's own data converter."""
    return await connect_temporal(temporal_server.address)


@contextmanager
def _folder() -> Iterator[Path]:
    """Make a folder for a server, in memory where there is room.

    A database is some six hundred files, which most disks take ten times as long to make.
    """
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > ROOM
    with tempfile.TemporaryDirectory(prefix="tallystick-", dir=memory if roomy else None) as folder:
        yield Path(folder)


def _database(url: str, name: str) -> str:
    return url.replace("/postgres?", f"/{name}?")


def _execute(url: str, statement: str) -> None:
    plain = url.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(statement)
