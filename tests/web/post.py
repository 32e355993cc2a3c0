"""Stripe's post on its whole way: a Stripe that sends, the web app, Temporal, cycles, ledger."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from pydantic import SecretStr
from sqlalchemy import select
from sqlmodel import col
from stripe import StripeClient
from temporalio.client import Client as TemporalClient
from temporalio.service import RPCError
from temporalio.worker import Worker

from activities.event_forwarding import EventForwarder
from activities.stripe_invoices import fetch
from tallystick.contracts import TASK_QUEUE, cycle_workflow_id
from tallystick.ledger import accounts, customers, inbox, invoices
from tallystick.ledger.account_tables import Invoice, Notice, StripeEvent
from tallystick.ledger.database import Ledger, entity
from tallystick.ledger.tables import Customer
from tallystick.services import Endpoints
from tallystick.settings import Settings
from tallystick.temporal import connect_temporal
from tallystick.web.app import create_app, utc_now
from tallystick.web.forwarder import BackgroundForwarder
from tallystick.web.health import Thresholds
from tallystick.web.serving import serve
from tests.sandbox.stripe_billing import Business, business
from tests.sandbox.stripe_stand import LIVE
from tests.support.house import PATIENCE
from workers.billing import billing_activities
from workers.plugin import TallystickPlugin

SNAPSHOTS, THIN = "whsec_snapshots", "whsec_thin"
FAR = datetime(2027, 1, 1, tzinfo=UTC)
"""When accounts begin: late enough for nothing to be opened or closed meanwhile."""


class Post:
    """The parts, and short ways to use and to look at them."""

    def __init__(self, shop: Business, ledger: Ledger, url: str, address: str):
        self.shop, self.ledger, self.url = shop, ledger, url
        self.stripe: StripeClient = shop.stand.client()
        self._address = address

    async def listen(self, secret: str = SNAPSHOTS, form: str = "snapshot", **more: Any) -> None:
        """Have Stripe send everything here."""
        url = f"{self.url}/webhooks/stripe"
        await self.shop.stand.control("POST", "webhooks", url=url, secret=secret, form=form, **more)

    async def disturb(self, **disturbance: Any) -> None:
        await self.shop.stand.control("POST", "disturbances", **disturbance)

    async def sent(self) -> None:
        """Wait until Stripe has no webhook under way."""
        await self.shop.stand.control("POST", "clock", advance=0)

    async def customer(self, name: str = "acme", card: str | None = "visa") -> str:
        """Add a customer with an account in which nothing is due; returns its id at Stripe."""
        mapped = await self.shop.customer(card)
        row = Customer(customer_id=name, name=name, plan="pass-through", stripe_customer_id=mapped)
        async with self.ledger.begin() as tx:
            await customers.add(tx, row)
            await accounts.open_account(tx, name, FAR, "UTC", FAR)
            await accounts.set_aligned_plan(tx, name, "pass-through")
        return mapped

    async def invoice(self, stripe_customer: str, cents: int, name: str = "acme") -> str:
        """Make a final invoice that the ledger knows as a draft; returns its id."""
        made = await self.shop.invoice(stripe_customer, cents)
        _, seen = await fetch(self.stripe, made.id, datetime.now(UTC))
        async with self.ledger.begin() as tx:
            await invoices.note(tx, seen, name, purpose="period", ordinal=1)
        return made.id

    async def new_card(self, stripe_customer: str) -> None:
        """Give the customer a card that works, and have it used from now on."""
        card = await self.stripe.v1.payment_methods.attach_async(
            "pm_card_visa", {"customer": stripe_customer}
        )
        await self.stripe.v1.customers.update_async(
            stripe_customer, {"invoice_settings": {"default_payment_method": card.id}}
        )

    async def settled(self) -> None:
        """Wait until every webhook was sent and every event has been applied."""
        await self.sent()
        async with asyncio.timeout(PATIENCE):
            while (await self.depth()).waiting:
                await asyncio.sleep(0.05)

    async def depth(self) -> inbox.Depth:
        async with self.ledger.begin() as tx:
            return await inbox.depth(tx)

    async def events(self) -> list[StripeEvent]:
        statement = select(StripeEvent).order_by(col(StripeEvent.created_at))
        async with self.ledger.begin() as tx:
            return [entity(StripeEvent, row) for row in await tx.execute(statement)]

    async def row(self, invoice_id: str) -> Invoice:
        async with self.ledger.begin() as tx:
            found = await invoices.find(tx, invoice_id)
        assert found is not None
        return found

    async def notices(self) -> list[Notice]:
        async with self.ledger.begin() as tx:
            return [entity(Notice, row) for row in await tx.execute(select(Notice))]

    async def end_cycle(self, name: str = "acme") -> None:
        """Terminate a customer's cycle, if it runs."""
        temporal = await connect_temporal(self._address)
        with suppress(RPCError):  # it may never have run
            await temporal.get_workflow_handle(cycle_workflow_id(name)).terminate()


@asynccontextmanager
async def working(temporal: TemporalClient, post: Post) -> AsyncIterator[None]:
    """Run a worker for cycles."""
    where = Endpoints(
        SecretStr("none"), None, SecretStr(LIVE), post.shop.stand.url, None, frozenset()
    )
    async with (
        billing_activities(post.ledger, temporal, where, Settings()) as activities,
        Worker(
            temporal, task_queue=TASK_QUEUE, activities=activities, plugins=[TallystickPlugin()]
        ),
    ):
        yield


@asynccontextmanager
async def open_post(ledger: Ledger, temporal_address: str) -> AsyncIterator[Post]:
    """Open the post office; the worker is up to the test, as Temporal may be away."""
    async with business() as shop:
        forwarder = BackgroundForwarder(
            EventForwarder(ledger, shop.stand.client(), utc_now),
            lambda: connect_temporal(temporal_address),
        )
        app = create_app(
            ledger,
            [SecretStr(SNAPSHOTS), SecretStr(THIN)],
            thresholds=Thresholds(age=300, depth=1_000),
            wake=forwarder.wake,
        )
        async with forwarder.running(), serve(app, host="127.0.0.1", port=0) as url:
            post = Post(shop, ledger, url, temporal_address)
            yield post
