"""A whole Tallystick to break: servers, stand-ins and workers, each a process of its own.

The caller here is a stubborn application: when Temporal does not answer, it asks again with the
same arguments, which is all that the client tells it to do.
"""

import asyncio
import os
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import httpx
import pytest
from temporalio.client import Client as TemporalClient
from temporalio.service import RPCError

from scripts.chaos_parts.books import Books, Key, Row, read_books
from scripts.chaos_parts.customers import add_customers
from scripts.chaos_parts.insisting import insist
from scripts.chaos_parts.load import marked
from tallystick.client import BilledMessage, Client
from tallystick.contracts import request_workflow_id
from tallystick.errors import UnavailableError
from tallystick.ledger.database import Ledger
from tallystick.local import LocalStack, local_stack
from tallystick.sandbox.remote import Control
from tallystick.settings import Settings
from tallystick.temporal import connect_temporal
from tests.crash.stops import Stops

T = TypeVar("T")

PATIENCE = 180
"""Seconds until a drill gives up: a dead worker is noticed after 15, and machines are slow."""

CUSTOMERS = ("acme", "bolt", "crux")
MODEL = "claude-sonnet-5-5"


class Drill:
    """The running parts, and who asks for what."""

    def __init__(
        self,
        stack: LocalStack,
        temporal: TemporalClient,
        claude: Control,
        stripe: Control,
        stops: Stops,
    ):
        self.stack, self.temporal = stack, temporal
        self.client = Client(temporal)
        self.claude, self.stripe, self.stops = claude, stripe, stops
        self.asked: dict[Key, asyncio.Task[BilledMessage]] = {}
        self._started = 0

    async def start_worker(self, **environment: str) -> Process:
        """Start a worker that does not wait for company before it tells Stripe."""
        self._started += 1
        all_started = self._started
        worker = await self.stack.start_worker(**{"TALLYSTICK_METER_LINGER": "0.05", **environment})
        await self.stack.until_working(all_started)
        return worker

    async def a_worker(self) -> Process:
        """Return a worker that runs, or start one."""
        return next(iter(self.stack.workers), None) or await self.start_worker()

    def ask(self, request_id: str, *, customer: str = "acme", **changes: Any) -> None:
        """Send an application off to ask; `finished` waits for it."""
        self.asked[customer, request_id] = asyncio.create_task(
            self.insist(request_id, customer=customer, **changes)
        )

    async def insist(
        self,
        request_id: str,
        *,
        customer: str = "acme",
        client: Client | None = None,
        **changes: Any,
    ) -> BilledMessage:
        """Ask, and ask again while Temporal is away."""
        body: dict[str, Any] = {
            "model": MODEL,
            "max_tokens": 64,
            "messages": [{"role": "user", "content": f"{marked(request_id)} What is a tally?"}],
            **changes,
        }
        messages = (client or self.client).messages
        async with asyncio.timeout(PATIENCE):
            return await insist(
                lambda: messages.create(customer_id=customer, request_id=request_id, **body),
                UnavailableError,
            )

    async def finished(self) -> dict[Key, BilledMessage]:
        """Wait until all that was asked is answered, recorded and metered; returns the replies."""
        replies = await _all({str(key): task for key, task in self.asked.items()})
        await _all({f"the rest of {key}": self._closed(key) for key in self.asked})
        return dict(zip(self.asked, replies, strict=True))

    async def _closed(self, key: Key) -> None:
        handle = self.temporal.get_workflow_handle(request_workflow_id(*key))
        async with asyncio.timeout(PATIENCE):
            await insist(handle.result, RPCError)

    async def books(self) -> Books:
        ledger = Ledger(self.stack.database_url, pool_size=1)
        try:
            return await read_books(ledger, self.claude, self.stripe)
        finally:
            await ledger.close()

    async def attempts(self, request_id: str) -> list[Row]:
        found = [a for a in (await self.books()).attempts if a["request_id"] == request_id]
        return sorted(found, key=lambda attempt: attempt["number"])

    async def until_logged(self, text: str) -> None:
        """Wait until some worker has written `text` in its log."""
        async with asyncio.timeout(PATIENCE):
            while text not in self.stack.worker_log():
                await asyncio.sleep(0.05)


async def _all(waits: Mapping[str, Awaitable[T]]) -> list[T]:
    """Wait for all of them; names each that failed, or never came."""
    results = await asyncio.gather(*waits.values(), return_exceptions=True)
    failed = [
        f"{name}: {result!r}"
        for name, result in zip(waits, results, strict=True)
        if isinstance(result, BaseException)
    ]
    assert not failed, "\n".join(failed)
    return cast("list[T]", results)


@asynccontextmanager
async def drill(home: Path) -> AsyncIterator[Drill]:
    """Run a stack with three customers and no worker yet."""
    with pytest.MonkeyPatch.context() as patch:
        # A module's stack starts before the fixture that does this for each test.
        for name in os.environ:
            if name.startswith(("ANTHROPIC_", "STRIPE_", "TEMPORAL_", "TALLYSTICK_", "DATABASE_")):
                patch.delenv(name)
        settings = Settings(home=home)
        async with (
            local_stack(settings) as stack,
            httpx.AsyncClient(base_url=stack.claude_url or "", timeout=PATIENCE) as claude,
            httpx.AsyncClient(base_url=stack.stripe_url or "", timeout=PATIENCE) as stripe,
        ):
            await add_customers(stack, settings, CUSTOMERS)
            stops = await Stops.install(stack.database_url)
            temporal = await connect_temporal(stack.temporal.address)
            running = Drill(stack, temporal, Control(claude), Control(stripe), stops)
            try:
                yield running
            finally:
                for task in running.asked.values():
                    task.cancel()
                await asyncio.gather(*running.asked.values(), return_exceptions=True)
                await stops.close()
