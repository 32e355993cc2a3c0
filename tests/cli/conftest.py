"""A small production for the command line: servers, both services, and `tallystick worker`.

Commands find everything by settings, as they would in a deployment; what answers at the base
addresses are the stand-ins, served from here. One for all tests of the folder, each with customers
of its own. Its Temporal is not the one that other folders share: a worker here would take their
work.
"""

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest
import pytest_asyncio
from pydantic import SecretStr
from stripe import StripeClient

from activities.stripe_catalog import create_customer
from activities.stripe_clients import stripe_client
from tallystick.client import BilledMessage, Client
from tallystick.embedded import embedded_temporal, stop_process
from tallystick.ledger import customers
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Customer
from tallystick.sandbox.claude import create_claude_app
from tallystick.sandbox.server import serve
from tallystick.sandbox.stripe import create_stripe_app
from tallystick.services import Endpoints
from tallystick.settings import Settings
from tallystick.temporal import connect_temporal
from tests.cli.shell import SECRET, Shell, until_said
from tests.support.house import PATIENCE, Control
from tests.support.past import Past

_numbers = itertools.count(1)


@dataclass
class Production:
    """A terminal on it, and ways past the command line."""

    shell: Shell
    client: Client
    ledger: Ledger
    stripe_client: StripeClient
    stripe: Control
    """The stand-in's other side."""
    past: Past
    """Usage in hours that are over."""

    async def customer(self) -> str:
        """Add a customer that no other test has, without the command, which has its own tests."""
        name = f"customer-{next(_numbers)}"
        mapped = await create_customer(self.stripe_client, name, name)
        row = Customer(customer_id=name, name=name, plan="pass-through", stripe_customer_id=mapped)
        async with self.ledger.begin() as tx:
            await customers.add(tx, row)
        return name

    async def ask(self, customer: str, request_id: str) -> BilledMessage:
        """Ask as an application would."""
        return await self.client.messages.create(
            customer_id=customer,
            request_id=request_id,
            model="claude-sonnet-5-5",
            max_tokens=64,
            messages=[{"role": "user", "content": f"<{request_id}> What is a tally stick?"}],
        )


@contextmanager
def _new_database(postgres: str, name: str) -> Iterator[str]:
    plain = postgres.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield postgres.replace("/postgres?", f"/{name}?")
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def bare_database(postgres: str) -> Iterator[str]:
    """The address of a database without tables."""
    with _new_database(postgres, f"bare_{next(_numbers)}") as url:
        yield url


@pytest_asyncio.fixture(scope="package")
async def production(
    tmp_path_factory: pytest.TempPathFactory, postgres: str
) -> AsyncIterator[Production]:
    folder = tmp_path_factory.mktemp("production")
    async with AsyncExitStack() as stack:
        temporal = await stack.enter_async_context(embedded_temporal(folder / "temporal"))
        database_url = stack.enter_context(_new_database(postgres, "command_line"))
        claude_url = await stack.enter_async_context(serve(create_claude_app()))
        stripe_url = await stack.enter_async_context(serve(create_stripe_app()))
        where = Endpoints(
            anthropic_api_key=SecretStr(f"sk-ant-{SECRET}"),
            anthropic_base_url=claude_url,
            stripe_api_key=SecretStr(f"sk_live_{SECRET}"),
            stripe_api_base=stripe_url,
            stripe_meter_events_base=stripe_url,
            sandboxed=frozenset(),
        )
        shell = Shell(
            folder / "home",
            DATABASE_URL=database_url,
            TEMPORAL_ADDRESS=temporal.address,
            ANTHROPIC_API_KEY=f"sk-ant-{SECRET}",
            ANTHROPIC_ADMIN_KEY=f"sk-ant-admin-{SECRET}",
            ANTHROPIC_BASE_URL=claude_url,
            STRIPE_API_KEY=f"sk_live_{SECRET}",
            STRIPE_API_BASE=stripe_url,
            STRIPE_METER_EVENTS_BASE=stripe_url,
            TALLYSTICK_METER_LINGER="0.05",
            TALLYSTICK_BATCH_POLL="0.2",
            TALLYSTICK_SHUTDOWN_GRACE="5",
            TALLYSTICK_SUMMARIES_SETTLE="0",
        )
        await shell("setup")
        await shell("stripe", "setup")
        worker = await shell.start("worker")
        stack.push_async_callback(stop_process, worker)
        await until_said(worker, "working on")
        ledger = Ledger(database_url, pool_size=1)
        stack.push_async_callback(ledger.close)
        stripe = await stack.enter_async_context(stripe_client(where, Settings()))
        to_claude, to_stripe = [
            Control(
                await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=PATIENCE))
            )
            for url in (claude_url, stripe_url)
        ]
        connected = await connect_temporal(temporal.address)
        for name in ("reconciliation-hourly", "reconciliation-daily"):
            # Tests say themselves when records are compared.
            await connected.get_schedule_handle(name).pause()
        past = Past(ledger, connected, to_claude)
        yield Production(shell, Client(connected), ledger, stripe, to_stripe, past)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A terminal on a machine where nothing runs and nothing is set."""
    return Shell(tmp_path / "home")
