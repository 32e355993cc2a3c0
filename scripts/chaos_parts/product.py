"""Tallystick under the drill: servers, stand-ins and workers, and an application that asks.

Everything runs as in production, with the settings' own defaults; only the way to Stripe is set, so
that half of the workers use the meter event stream and half single events.
"""

import asyncio
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import httpx
from temporalio.client import Client as TemporalClient
from temporalio.common import SearchAttributeKey
from temporalio.service import RPCError

from tallystick.client import Client
from tallystick.contracts import CLAUDE_REQUEST, BillingState, request_workflow_id
from tallystick.errors import FAILURES, TallystickError, UnavailableError
from tallystick.ledger.database import Ledger
from tallystick.local import LocalStack, local_stack
from tallystick.sandbox.remote import Control
from tallystick.settings import Settings
from tallystick.temporal import connect_temporal

from .books import Books, Key, read_books
from .customers import add_customers
from .heard import Heard
from .insisting import insist
from .load import Ask
from .mischief import StandIns
from .schedule import Death
from .supervisor import Fleet

CUSTOMERS = ("acme", "birch", "cobalt", "delta", "ember")
PATIENCE = 60.0
"""Seconds for a stand-in to answer a control call; a whole journal takes a moment."""
TRANSPORTS = ("stream", "events")
_RUNNING = f"WorkflowType = '{CLAUDE_REQUEST}' AND ExecutionStatus = 'Running'"
_BILLING_STATE = SearchAttributeKey.for_keyword("BillingState")


class Product:
    """The running parts."""

    def __init__(
        self, local: LocalStack, temporal: TemporalClient, stand_ins: StandIns, workers: int
    ):
        self.stand_ins = stand_ins
        self.fleet = Fleet(self._start_worker, workers)
        self.servers_down: set[str] = set()
        self._turns = {name: asyncio.Lock() for name in ("Temporal", "PostgreSQL")}
        self._local, self._temporal = local, temporal
        self._messages = Client(temporal).messages

    async def ask(self, ask: Ask) -> Heard:
        """Ask until Tallystick answers or refuses."""
        try:
            reply = await insist(
                lambda: self._messages.create(
                    customer_id=ask.customer_id, request_id=ask.request_id, **ask.params
                ),
                UnavailableError,
            )
        except TallystickError as error:
            # A failure that is none of the table's has told the caller nothing.
            return Heard(refused=error.type if error.type in FAILURES else None, told=str(error))
        return Heard(message_id=reply.id)

    async def die(self, death: Death) -> None:
        """Kill what the schedule says, and start it again.

        A server that is not back yet from its last death dies when it is: what starts it would
        fail otherwise, and with it the drill.
        """
        if death.victim == "worker":
            self.fleet.kill(death.slot)
            return
        async with self._turns[death.victim]:
            self.servers_down.add(death.victim)
            if death.victim == "Temporal":
                await self._local.kill_temporal()
                await asyncio.sleep(death.down)
                await self._local.restart_temporal()
            else:
                await self._local.kill_postgres()
                await asyncio.sleep(death.down)
                await self._local.restart_postgres()
            self.servers_down.remove(death.victim)

    async def running(self) -> dict[Key, bool]:
        """Return the requests that are under way, and of each whether it waits for a person."""
        found: dict[Key, bool] = {}
        async for execution in self._temporal.list_workflows(_RUNNING):
            _, customer_id, request_id = execution.id.split("/", 2)
            state = execution.typed_search_attributes.get(_BILLING_STATE)
            found[customer_id, request_id] = state == BillingState.STUCK
        return found

    async def retry(self, key: Key) -> None:
        """Do what a person does who has mended the cause."""
        with suppress(RPCError):  # it has ended meanwhile
            await self._temporal.get_workflow_handle(request_workflow_id(*key)).signal("retry_now")

    async def books(self) -> Books:
        """Read the three records."""
        ledger = Ledger(self._local.database_url, pool_size=1)
        try:
            return await read_books(ledger, self.stand_ins.claude, self.stand_ins.stripe)
        finally:
            await ledger.close()

    async def _start_worker(self, slot: int) -> Process:
        transport = TRANSPORTS[slot % len(TRANSPORTS)]
        return await self._local.start_worker(TALLYSTICK_STRIPE_TRANSPORT=transport)


@asynccontextmanager
async def product(home: Path, workers: int) -> AsyncGenerator[Product, None]:
    """Run all of it in `home`, on servers and stand-ins of its own."""
    settings = Settings(home=home)
    async with AsyncExitStack() as stack:
        local = await stack.enter_async_context(local_stack(settings))
        await add_customers(local, settings, CUSTOMERS)
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=PATIENCE))
        stand_ins = StandIns(
            Control(http, local.claude_url or ""), Control(http, local.stripe_url or "")
        )
        temporal = await connect_temporal(local.temporal.address)
        running = Product(local, temporal, stand_ins, workers)
        async with running.fleet.kept():
            await local.until_working(workers)
            yield running
