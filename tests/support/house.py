"""Everything one request needs, in one process: worker, stand-ins, ledger, on a real Temporal.

The worker is the production one (`workers.main.working`) on production clients; only the services
behind the addresses are stand-ins. Whatever was sent to Stripe must have been valid by its
published description, or the test fails at the end. What a test leaves running on the shared server
is ended with the house, so that the next test's worker does not inherit it.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from pydantic import SecretStr
from sqlalchemy import select
from sqlmodel import SQLModel, col
from starlette.types import ASGIApp
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError

from activities.stripe_catalog import create_customer, ensure_catalog
from activities.stripe_clients import stripe_client
from tallystick.client import BilledMessage, Client
from tallystick.contracts import request_workflow_id
from tallystick.ledger import customers
from tallystick.ledger.database import Ledger, entity
from tallystick.ledger.tables import Attempt, Customer, MeterEvent, UsageRecord
from tallystick.sandbox.claude import create_claude_app
from tallystick.sandbox.remote import Control
from tallystick.sandbox.server import serve
from tallystick.sandbox.stripe import create_stripe_app
from tallystick.services import Endpoints
from tallystick.settings import (
    SANDBOX_ADMIN_KEY,
    SANDBOX_CLAUDE_KEY,
    SANDBOX_STRIPE_KEY,
    Settings,
)
from tests.contract.stripe_contract import ContractRecorder
from workers.main import Role, working

PATIENCE = 60
"""Seconds a test waits for something that has to come; far more than it takes."""


class House:
    """The parts, and short ways to ask and to look."""

    def __init__(
        self, temporal: TemporalClient, ledger: Ledger, claude: Control, stripe: Control, name: str
    ):
        self.temporal, self.ledger = temporal, ledger
        self.client = Client(temporal)
        self.claude, self.stripe = claude, stripe
        self.customer = name

    async def ask(self, request_id: str, /, **changes: Any) -> BilledMessage:
        """Ask for an answer with a body that depends on the id alone."""
        arguments: dict[str, Any] = {
            "customer_id": self.customer,
            "request_id": request_id,
            "model": "claude-sonnet-5-5",
            "max_tokens": 64,
            "messages": [{"role": "user", "content": f"<{request_id}> What is a tally stick?"}],
        }
        return await asyncio.wait_for(
            self.client.messages.create(**{**arguments, **changes}), PATIENCE
        )

    def workflow(self, request_id: str, customer: str | None = None) -> WorkflowHandle[Any, Any]:
        return self.temporal.get_workflow_handle(
            request_workflow_id(customer or self.customer, request_id)
        )

    async def done(self, request_id: str) -> None:
        """Wait until the request has been metered, or has failed."""
        handle = self.workflow(request_id)
        async with asyncio.timeout(PATIENCE):
            while (await handle.describe()).close_time is None:
                await asyncio.sleep(0.05)

    async def billing_state(self, request_id: str) -> str | None:
        attributes = (await self.workflow(request_id).describe()).typed_search_attributes
        return {pair.key.name: pair.value for pair in attributes}.get("BillingState")

    async def reaches(self, request_id: str, state: str) -> None:
        """Wait until the request shows this `BillingState`."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    if await self.billing_state(request_id) == state:
                        return
                except RPCError:
                    pass  # not started yet
                await asyncio.sleep(0.05)

    async def events(self, request_id: str) -> list[str]:
        history = await self.workflow(request_id).fetch_history()
        return [
            EventType.Name(event.event_type).removeprefix("EVENT_TYPE_") for event in history.events
        ]

    async def attempts(self, request_id: str) -> Sequence[Attempt]:
        return await self._rows(Attempt, request_id, "number")

    async def records(self, request_id: str) -> Sequence[UsageRecord]:
        return await self._rows(UsageRecord, request_id, "usage_record_id")

    async def meter_events(self, request_id: str) -> Sequence[MeterEvent]:
        return await self._rows(MeterEvent, request_id, "meter_event_id")

    async def _rows(self, table: type[Any], request_id: str, order: str) -> Any:
        statement = (
            select(table).where(col(table.request_id) == request_id).order_by(getattr(table, order))
        )
        async with self.ledger.begin() as tx:
            return [_entity(table, row) for row in await tx.execute(statement)]


def _entity(table: type[SQLModel], row: Any) -> SQLModel:
    return entity(table, row)


@asynccontextmanager
async def open_house(
    temporal: TemporalClient,
    database_url: str,
    name: str,
    *,
    claude_app: ASGIApp | None = None,
    admin_key: str | None = SANDBOX_ADMIN_KEY,
    **changes: Any,
) -> AsyncIterator[House]:
    """Open the house with one customer, `name`, who is known to Stripe.

    `claude_app` takes the place of the plain stand-in, `admin_key` reads Claude's reports, and
    `changes` are of settings.
    """
    # Short waits where production would rather wait for company.
    settings = Settings(**{"meter_linger": 0.05, "shutdown_grace": 5, **changes})
    contract = ContractRecorder(create_stripe_app())
    async with (
        serve(claude_app or create_claude_app()) as claude_url,
        serve(contract) as stripe_url,
        httpx.AsyncClient(base_url=claude_url, timeout=PATIENCE) as claude,
        httpx.AsyncClient(base_url=stripe_url, timeout=PATIENCE) as stripe,
    ):
        where = Endpoints(
            anthropic_api_key=SecretStr(SANDBOX_CLAUDE_KEY),
            anthropic_base_url=claude_url,
            stripe_api_key=SecretStr(SANDBOX_STRIPE_KEY),
            stripe_api_base=stripe_url,
            stripe_meter_events_base=stripe_url,
            sandboxed=frozenset(),
            anthropic_admin_key=None if admin_key is None else SecretStr(admin_key),
        )
        ledger = Ledger(database_url)
        async with stripe_client(where, settings) as client:
            await ensure_catalog(client)
            mapped = await create_customer(client, name, name)
        async with ledger.begin() as tx:
            await customers.add(
                tx,
                Customer(
                    customer_id=name, name=name, plan="pass-through", stripe_customer_id=mapped
                ),
            )
        try:
            async with working(temporal, database_url, where, settings, list(Role)):
                yield House(temporal, ledger, Control(claude), Control(stripe), name)
        finally:
            await ledger.close()
            await _end_everything(temporal)
    contract.assert_all_valid()


async def _end_everything(temporal: TemporalClient) -> None:
    async for execution in temporal.list_workflows("ExecutionStatus = 'Running'"):
        try:
            await temporal.get_workflow_handle(execution.id, run_id=execution.run_id).terminate()
        except RPCError:
            continue  # ended by itself meanwhile
