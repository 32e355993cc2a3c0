"""A whole Tallystick on disk: its servers' files and its processes' logs can be searched.

Workers come and go with the keys they are given. Claude says what a test wants.
"""

import asyncio
import base64
import os
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr
from temporalio.client import Client as TemporalClient

from activities.stripe_catalog import create_customer
from activities.stripe_clients import stripe_client
from tallystick.client import Client
from tallystick.embedded import stop_process
from tallystick.ledger import customers
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Customer
from tallystick.local import LocalStack, local_stack
from tallystick.payloads.keys import Keyring
from tallystick.sandbox.server import serve
from tallystick.settings import Settings
from tallystick.temporal import connect_temporal
from tests.payloads.replies import Saying
from tests.support.house import Control
from workers.main import Role, working

PATIENCE = 120
CUSTOMER = "acme"


def new_key(name: str) -> str:
    return f"{name}:{base64.b64encode(os.urandom(32)).decode()}"


class Stage:
    """The running parts."""

    def __init__(
        self,
        local: LocalStack,
        settings: Settings,
        ledger: Ledger,
        claude: Saying,
        stripe: Control,
    ):
        self.local, self.ledger, self.claude, self.stripe = local, ledger, claude, stripe
        self._settings = settings

    async def temporal(self, *keys: str) -> TemporalClient:
        return await connect_temporal(self.local.temporal.address, keys=Keyring.parse(keys))

    async def client(self, *keys: str) -> Client:
        return Client(await self.temporal(*keys))

    async def start_worker(self, *keys: str, **environment: str) -> Process:
        begun = self.log("worker").count("working on")
        worker = await self.local.start_worker(
            TALLYSTICK_PAYLOAD_KEYS=",".join(keys), TALLYSTICK_METER_LINGER="0.05", **environment
        )
        async with asyncio.timeout(PATIENCE):
            while self.log("worker").count("working on") == begun:
                assert worker.returncode is None, self.log("worker")
                await asyncio.sleep(0.05)
        return worker

    @asynccontextmanager
    async def working(self, *keys: str) -> AsyncIterator[None]:
        """Work in this process, which is quicker and logs nowhere."""
        settings = self._settings.model_copy(
            update={
                "payload_keys": [SecretStr(key) for key in keys],
                "meter_linger": 0.05,
                "shutdown_grace": 5,
            }
        )
        where = self.local.endpoints(settings)
        temporal = await self.temporal(*keys)
        async with working(temporal, self.local.database_url, where, settings, list(Role)):
            yield

    async def stop_worker(self, worker: Process) -> None:
        await stop_process(worker, patience=PATIENCE)
        self.local.workers.remove(worker)

    def log(self, name: str) -> str:
        file = self.local.home / f"{name}.log"
        return file.read_text() if file.exists() else ""

    async def everything(self) -> dict[str, bytes]:
        """Return all that is stored or logged, by where that is."""
        files = [*self.local.home.glob("*.log"), *(self.local.home / "temporal").iterdir()]
        found: dict[str, bytes] = {}
        for file in files:
            place = file.name if file.suffix == ".log" else "temporal"
            found[place] = found.get(place, b"") + file.read_bytes()
        listed = (await self.temporal()).list_workflows()
        shown = [str(each.raw_info) async for each in listed]  # memo and search attributes too
        found["visibility"] = "\n".join(shown).encode()
        plain = self.local.database_url.replace("postgresql+psycopg://", "postgresql://")
        async with await psycopg.AsyncConnection.connect(plain) as connection:
            tables = await connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
            )
            for (table,) in await tables.fetchall():
                rows = await connection.execute(
                    sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(table))
                )
                found[f"table {table}"] = "\n".join([row[0] async for row in rows]).encode()
        return found


def written_as(marker: str) -> list[bytes]:
    """Return how a text may stand in a file: as it is, as hex, in base64 from any byte on."""
    raw = marker.encode()
    encoded = [
        base64.b64encode(b"x" * before + raw)[4 if before else 0 : -4] for before in range(3)
    ]
    return [raw, raw.hex().encode(), *encoded]


def places(everything: dict[str, bytes], marker: str) -> set[str]:
    """Return where a marker is found."""
    ways = written_as(marker)
    return {place for place, content in everything.items() if any(each in content for each in ways)}


@asynccontextmanager
async def open_stage(home: Path, **environment: str) -> AsyncIterator[Stage]:
    """Run servers, stand-ins and the web process for one customer, and no worker yet."""
    claude = Saying()
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(("ANTHROPIC_", "STRIPE_", "TEMPORAL_", "TALLYSTICK_", "DATABASE_")):
                patch.delenv(name)
        async with serve(claude) as claude_url:
            for name, value in {"ANTHROPIC_BASE_URL": claude_url, **environment}.items():
                patch.setenv(name, value)
            settings = Settings(home=home, sandbox="stripe")
            async with (
                local_stack(settings) as local,
                httpx.AsyncClient(base_url=local.stripe_url or "", timeout=PATIENCE) as stripe,
            ):
                ledger = Ledger(local.database_url, pool_size=2)
                await _add_customer(local, settings, ledger)
                await local.start_web()
                try:
                    yield Stage(local, settings, ledger, claude, Control(stripe))
                finally:
                    await ledger.close()


async def _add_customer(local: LocalStack, settings: Settings, ledger: Ledger) -> None:
    async with stripe_client(local.endpoints(settings), settings) as stripe:
        mapped = await create_customer(stripe, CUSTOMER, CUSTOMER)
    row = Customer(
        customer_id=CUSTOMER, name=CUSTOMER, plan="pass-through", stripe_customer_id=mapped
    )
    async with ledger.begin() as tx:
        await customers.add(tx, row)


def body(text: str, **changes: Any) -> dict[str, Any]:
    """Return a Messages API body that asks this."""
    return {
        "model": "claude-sonnet-5-5",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": text}],
        **changes,
    }
