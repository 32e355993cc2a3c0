"""How fast webhooks are acknowledged, and that none is lost: a storm of them, duplicated, shuffled.

A third of the deliveries comes while Temporal is stopped. What is not answered with 200 is
delivered again, as Stripe would. Afterwards every event must have been applied exactly once, which
a trigger in the database writes down; how long acknowledging and draining took is printed and
judged by nobody, since machines differ. Web app, worker and servers are processes of their own.
"""

import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psycopg
from stripe import StripeClient, WebhookSignature

from activities.stripe_clients import stripe_client
from activities.stripe_invoices import fetch
from tallystick.embedded import free_port, start_temporal, stop_process
from tallystick.ledger import accounts, customers, invoices
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Customer
from tallystick.local import LocalStack, local_stack
from tallystick.settings import Settings

CUSTOMERS = 40
SECRET = "whsec_bench"  # noqa: S105
FAR = datetime(2100, 1, 1, tzinfo=UTC)
"""When the accounts begin, so that nothing else is due in them."""
PATIENCE = 600
"""Seconds for the inbox to drain; far more than it takes."""


@dataclass(frozen=True)
class Delivery:
    """One event on its way; `id` names the event, of which there may be several deliveries."""

    id: str
    body: str


@dataclass
class Acknowledged:
    """How long each acknowledgement took, in seconds, and how many tries were not taken."""

    seconds: list[float] = field(default_factory=list[float])
    refused: int = 0

    def within(self, limit: float) -> float:
        """Return the share of acknowledgements that took no longer."""
        return sum(taken <= limit for taken in self.seconds) / len(self.seconds)

    def percentile(self, percent: int) -> float:
        """Return within which time this percentage was acknowledged."""
        return statistics.quantiles(self.seconds, n=100, method="inclusive")[percent - 1]


def subjects_of(stripe_customer: str, invoice: str) -> list[dict[str, str]]:
    """Return what events about a customer with an invoice can be about, each with its `type`."""
    return [
        {
            "type": "invoice.updated",
            "object": "invoice",
            "id": invoice,
            "customer": stripe_customer,
        },
        {"type": "customer.updated", "object": "customer", "id": stripe_customer},
    ]


def storm(count: int, subjects: Sequence[dict[str, str]], *, seed: int = 1) -> list[Delivery]:
    """Return `count` deliveries in random order, of six events for every ten.

    Args:
        count: how many.
        subjects: what events are about, in turn: `type`, and the object as Stripe words it.
        seed: of the order.
    """
    pick = random.Random(seed)  # noqa: S311
    events = [_event(subjects[number % len(subjects)]) for number in range(count * 6 // 10)]
    again = [pick.choice(events) for _ in range(count - len(events))]
    deliveries = events + again
    pick.shuffle(deliveries)
    return deliveries


def _event(subject: dict[str, str]) -> Delivery:
    event_id = f"evt_{uuid.uuid4().hex}"
    obj = {name: value for name, value in subject.items() if name != "type"}
    event = {
        "id": event_id,
        "object": "event",
        "api_version": "2026-10-28.endive",
        "created": int(time.time()),
        "type": subject["type"],
        "data": {"object": obj},
    }
    return Delivery(event_id, json.dumps(event))


async def deliver(
    deliveries: Iterable[Delivery], url: str, secret: str, *, at_once: int
) -> Acknowledged:
    """Deliver all of them, each until it is acknowledged."""
    acknowledged = Acknowledged()
    waiting = iter(deliveries)

    async def lane(http: httpx.AsyncClient) -> None:
        for delivery in waiting:
            while not await _try(http, delivery, secret, acknowledged):
                acknowledged.refused += 1
                await asyncio.sleep(0.2)

    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        await asyncio.gather(*(lane(http) for _ in range(at_once)))
    return acknowledged


async def _try(
    http: httpx.AsyncClient, delivery: Delivery, secret: str, acknowledged: Acknowledged
) -> bool:
    header = WebhookSignature.generate_signature_header(delivery.body, secret)
    began = time.perf_counter()
    try:
        answer = await http.post(
            "/webhooks/stripe", content=delivery.body, headers={"Stripe-Signature": header}
        )
    except httpx.TransportError:
        return False
    if answer.status_code != 200:
        return False
    acknowledged.seconds.append(time.perf_counter() - began)
    return True


class Witness:
    """Writes down, inside the database, each time that an event is marked as applied.

    Args:
        database_url: whose events.
    """

    def __init__(self, database_url: str):
        self._url = database_url.replace("postgresql+psycopg://", "postgresql://")

    def watch(self) -> None:
        """Begin."""
        with psycopg.connect(self._url) as connection:
            connection.execute("CREATE TABLE applied_log (event_id text NOT NULL)")
            connection.execute(
                "CREATE FUNCTION log_applied() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "INSERT INTO applied_log VALUES (NEW.event_id); RETURN NULL; END $$"
            )
            connection.execute(
                "CREATE TRIGGER log_applied AFTER UPDATE OF applied_at ON stripe_events "
                "FOR EACH ROW EXECUTE FUNCTION log_applied()"
            )

    async def drained(self) -> None:
        """Wait until nothing waits in the inbox."""
        async with asyncio.timeout(PATIENCE):
            while True:
                if not self._rows(
                    "SELECT 1 FROM stripe_events WHERE applied_at IS NULL AND parked_at IS NULL"
                ):
                    return
                await asyncio.sleep(0.2)

    def applied(self) -> list[str]:
        """Return the ids of events as often as they were marked."""
        return [row[0] for row in self._rows("SELECT event_id FROM applied_log")]

    def parked(self) -> int:
        """Return how many events wait for a person."""
        return len(self._rows("SELECT 1 FROM stripe_events WHERE parked_at IS NOT NULL"))

    def _rows(self, statement: str) -> list[tuple[str]]:
        with psycopg.connect(self._url) as connection:
            return connection.execute(statement).fetchall()  # type: ignore[arg-type]


async def bench(count: int, at_once: int) -> list[tuple[str, float, str]]:
    """Return figures: what was measured, how much it is, and what it should be."""
    with tempfile.TemporaryDirectory(prefix="tallystick-") as home:
        settings = Settings(home=Path(home), database_url=None)
        async with local_stack(settings) as local:
            subjects = await _subjects(local, settings)
            witness = Witness(local.database_url)
            witness.watch()
            await local.start_worker()
            async with _web(local) as url:
                deliveries = storm(count, subjects)
                acknowledged, drained = await _storm(local, deliveries, url, witness, at_once)
            return _figures(deliveries, acknowledged, drained, witness)


async def _storm(
    local: LocalStack, deliveries: list[Delivery], url: str, witness: Witness, at_once: int
) -> tuple[Acknowledged, float]:
    third = len(deliveries) // 3
    acknowledged = Acknowledged()
    for name, part in (
        ("with Temporal", deliveries[:third]),
        ("without Temporal", deliveries[third : 2 * third]),
        ("with Temporal back", deliveries[2 * third :]),
    ):
        if name == "without Temporal":
            await witness.drained()  # a step that is lost with its server would wait for a timeout
            await stop_process(local.temporal.process)
        if name == "with Temporal back":
            port = int(local.temporal.address.rsplit(":", 1)[1])
            local.temporal = await start_temporal(local.home / "temporal", port=port, ui_port=None)
        print(f"{len(part):,} deliveries {name}", file=sys.stderr, flush=True)
        taken = await deliver(part, url, SECRET, at_once=at_once)
        acknowledged.seconds += taken.seconds
        acknowledged.refused += taken.refused
    began = time.perf_counter()
    await witness.drained()
    return acknowledged, time.perf_counter() - began


def _figures(
    deliveries: Sequence[Delivery], acknowledged: Acknowledged, drained: float, witness: Witness
) -> list[tuple[str, float, str]]:
    events = {delivery.id for delivery in deliveries}
    applied = witness.applied()
    return [
        ("deliveries", len(deliveries), "-"),
        ("events", len(events), "-"),
        ("lost", len(events - set(applied)), "0"),
        ("applied more than once", len(applied) - len(set(applied)), "0"),
        ("parked", witness.parked(), "0"),
        ("deliveries repeated for want of a 200", acknowledged.refused, "0"),
        ("acknowledged within 100 ms, %", round(acknowledged.within(0.1) * 100, 2), "99 or more"),
        *(
            (
                f"acknowledgement p{percent}, ms",
                round(acknowledged.percentile(percent) * 1e3, 1),
                "-",
            )
            for percent in (50, 95, 99)
        ),
        ("seconds to drain after the last", round(drained, 1), "-"),
    ]


async def _subjects(local: LocalStack, settings: Settings) -> list[dict[str, str]]:
    """Add customers, each with an open invoice, and return what events can be about."""
    subjects: list[dict[str, str]] = []
    ledger = Ledger(local.database_url, pool_size=1)
    async with stripe_client(local.endpoints(settings), settings) as stripe:
        for number in range(CUSTOMERS):
            name = f"bench-{number}"
            mapped, invoice = await _open_invoice(stripe, name)
            _, seen = await fetch(stripe, invoice, datetime.now(UTC))
            row = Customer(
                customer_id=name, name=name, plan="pass-through", stripe_customer_id=mapped
            )
            async with ledger.begin() as tx:
                await customers.add(tx, row)
                await accounts.open_account(tx, name, FAR, "UTC", FAR)
                await accounts.set_aligned_plan(tx, name, row.plan)
                await invoices.note(tx, seen, name, purpose="period", ordinal=1)
            subjects += subjects_of(mapped, invoice)
    await ledger.close()
    return subjects


async def _open_invoice(stripe: StripeClient, name: str) -> tuple[str, str]:
    customer = await stripe.v1.customers.create_async({"name": name})
    await stripe.v1.invoice_items.create_async(
        {"customer": customer.id, "amount": 1_000, "currency": "usd"}
    )
    draft = await stripe.v1.invoices.create_async(
        {"customer": customer.id, "pending_invoice_items_behavior": "include"}
    )
    invoice = await stripe.v1.invoices.finalize_invoice_async(draft.id)
    return customer.id, invoice.id


@asynccontextmanager
async def _web(local: LocalStack) -> AsyncIterator[str]:
    """Run `tallystick web` as a process; yields its address once it answers."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    program = str(Path(sys.executable).parent / "tallystick")
    with (local.home / "web.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            program, "web", "--port", str(port),
            stdout=log,
            stderr=log,
            env={**local.environment, "STRIPE_WEBHOOK_SECRET": SECRET},
        )  # fmt: skip
    try:
        async with httpx.AsyncClient(base_url=url) as http, asyncio.timeout(PATIENCE):
            while process.returncode is None:
                try:
                    await http.get("/health")
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
        yield url
    finally:
        await stop_process(process)
