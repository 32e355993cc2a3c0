"""The worker killed with SIGKILL at every step of a close: one statement, one set of lines.

One account's close is stopped where each step talks to Stripe or writes to the ledger, and the
worker is killed there; the next one takes over. What a killed worker has asked of Stripe is done
after its death all the same, so the next one meets a Stripe that knows more than the ledger.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import httpx
import psycopg
from sqlalchemy import func, select
from sqlmodel import col
from stripe import StripeClient

from activities.stripe_catalog import create_customer
from activities.stripe_clients import stripe_client
from activities.waking import wake
from tallystick.client import Client
from tallystick.contracts import News
from tallystick.embedded import VIRTUAL_TIME
from tallystick.ledger import accounts, customers, invoices, statements
from tallystick.ledger.account_tables import Notice, Statement, StatementItem
from tallystick.ledger.customers import PlanInForce
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Customer, MeterEvent
from tallystick.local import local_stack
from tallystick.plans import PlanTerms
from tallystick.plans.periods import billing_period
from tallystick.sandbox.remote import Control
from tallystick.sandbox.virtual_time import VirtualTime
from tallystick.settings import Settings
from tallystick.temporal import connect_temporal
from tests.support.house import PATIENCE

PLAN = PlanTerms.read({"model": "pass-through", "markup": "0.2", "commitment_usd": "5"})
CLOSING = 600.0
"""Real seconds for the whole close: each killed worker is noticed after 15."""

Caught = Callable[[], Awaitable[None]]
Stop = Callable[[Control, str], AbstractAsyncContextManager[Caught]]


def at_stripe(match: str) -> Stop:
    """Stop a call to Stripe that has arrived there; it goes on when the stop ends."""

    @asynccontextmanager
    async def stop(stripe: Control, _: str) -> AsyncIterator[Caught]:
        hold = await stripe.hold(match=match)
        try:
            yield lambda: stripe.caught(hold)
        finally:
            await stripe.release(hold)

    return stop


def in_ledger(lock: str) -> Stop:
    """Stop a write to the ledger by a lock that stands in its way."""

    @asynccontextmanager
    async def stop(_: Control, url: str) -> AsyncIterator[Caught]:
        plain = url.replace("postgresql+psycopg://", "postgresql://")
        connection = await psycopg.AsyncConnection.connect(plain)
        async with connection:
            await connection.execute(lock)

            async def caught() -> None:
                waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
                async with asyncio.timeout(PATIENCE):
                    while True:
                        (count,) = await (await connection.execute(waiting)).fetchone() or (0,)
                        if count:
                            return
                        await asyncio.sleep(0.05)

            yield caught
            await connection.rollback()

    return stop


STOPS: dict[str, Stop] = {
    "hold_draft": at_stripe("auto_advance=false"),
    "close_books": in_ledger("SELECT FROM billing_accounts FOR UPDATE"),
    "verify_metering": at_stripe("/event_summaries?"),
    "settle_period": in_ledger("LOCK TABLE statement_lines IN SHARE MODE"),
    "put_on_invoice": at_stripe("POST /v1/invoiceitems?"),
    "finalize_invoice": at_stripe("/finalize?"),
}


async def test_a_close_that_is_killed_at_every_step_bills_once() -> None:
    with tempfile.TemporaryDirectory(prefix="tallystick-", ignore_cleanup_errors=True) as home:
        settings = Settings(home=Path(home), meter_linger=0.05)
        async with local_stack(settings, temporal_arguments=VIRTUAL_TIME) as local:
            worker = await local.start_worker(TALLYSTICK_METER_LINGER="0.05")
            temporal = await connect_temporal(local.temporal.address)
            ledger = Ledger(local.database_url, pool_size=2)
            assert local.stripe_url is not None
            async with (
                stripe_client(local.endpoints(settings), settings) as stripe,
                httpx.AsyncClient(base_url=local.stripe_url, timeout=60) as http,
            ):
                anchor = datetime.now(UTC).replace(microsecond=0)
                end = billing_period(anchor, "UTC", 1).end
                await _open(stripe, ledger, anchor)
                await wake(temporal, "acme", News())
                time = VirtualTime(temporal, http, ["acme"], patience=CLOSING)
                # Set up first: usage from before the subscription would be an item of ours.
                await time.settle()
                await Client(temporal).messages.create(
                    customer_id="acme",
                    request_id="one",
                    model="claude-opus-5",
                    max_tokens=100,
                    messages=[{"role": "user", "content": "tally " * 60_000}],
                )
                await _until_metered(ledger)
                await time.to(end - timedelta(hours=1))

                closing = asyncio.create_task(time.to(end + timedelta(hours=1)))
                control = Control(http)
                for name, stop in STOPS.items():
                    async with stop(control, local.database_url) as caught:
                        if name != next(iter(STOPS)):
                            worker = await local.start_worker()
                        await asyncio.wait_for(caught(), 180)
                        await local.kill_worker(worker)
                await local.start_worker()
                await closing

                await _check(ledger, stripe)
            await ledger.close()


async def _open(stripe: StripeClient, ledger: Ledger, anchor: datetime) -> None:
    stripe_id = await create_customer(stripe, "acme", "Acme")
    card = await stripe.v1.payment_methods.attach_async("pm_card_visa", {"customer": stripe_id})
    await stripe.v1.customers.update_async(
        stripe_id, {"invoice_settings": {"default_payment_method": card.id}}
    )
    async with ledger.begin() as tx:
        began = datetime(2026, 1, 1, tzinfo=UTC)
        await customers.add_plan(tx, PlanInForce("agreed", began, PLAN.model_dump(mode="json")))
        await customers.add(
            tx,
            Customer(customer_id="acme", name="Acme", plan="agreed", stripe_customer_id=stripe_id),
        )
        await accounts.open_account(tx, "acme", anchor, "UTC", anchor)


async def _until_metered(ledger: Ledger) -> None:
    waiting = select(func.count()).where(col(MeterEvent.delivered_at).is_(None))
    async with asyncio.timeout(PATIENCE):
        while True:
            async with ledger.begin() as tx:
                if not (await tx.execute(waiting)).scalar_one():
                    return
            await asyncio.sleep(0.1)


async def _check(ledger: Ledger, stripe: StripeClient) -> None:
    async with ledger.begin() as tx:
        numbers = list(await tx.scalars(select(col(Statement.ordinal))))
        items = list(await tx.scalars(select(col(StatementItem.stripe_invoice_item_id))))
        told = list(await tx.scalars(select(col(Notice.kind))))
        stored = await statements.get(tx, "acme", 1)
        collected_by = await invoices.of_period(tx, "acme", 1)
    assert numbers == [1]
    assert stored is not None
    (invoice,) = collected_by
    lines = (await stripe.v1.invoices.line_items.list_async(invoice.stripe_invoice_id)).data
    # Usage as Stripe's own metered line, what is missing to $5 as our item; each once, to the cent.
    wanted = sorted(line.amount_cents for line in stored.statement.lines if line.amount_cents)
    assert sorted(line.amount for line in lines) == wanted
    assert len(wanted) == 2
    assert stored.statement.usage_usd > Decimal("0.5")
    assert stored.statement.due_usd == 5
    assert invoice.status == "paid"
    assert invoice.amount_paid_cents == stored.statement.due_cents
    assert len(items) == len(set(items))
    assert told == []
