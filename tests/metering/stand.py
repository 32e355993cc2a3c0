"""Metering between a real ledger and a Stripe on loopback, with one clock for both sides."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import SecretStr
from sqlalchemy import select
from sqlmodel import col
from temporalio.testing import ActivityEnvironment

from activities.metering import MeteringActivities
from activities.stripe_catalog import create_customer, ensure_catalog
from activities.stripe_clients import stripe_client
from activities.stripe_meters import meter_transport
from tallystick.contracts import MeterOrder, MeterReceipt, RequestKey
from tallystick.ledger import attempts, customers, usage
from tallystick.ledger.attempts import Begun, Completion, NewAttempt
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Customer, MeterEvent, Outcome
from tallystick.ledger.usage import NewRecord
from tallystick.metering import CHARGE_METER, token_meter
from tallystick.services import Endpoints
from tallystick.settings import Settings
from tests.sandbox.stripe_stand import LIVE, StripeStand, stripe_stand

INPUT, OUTPUT = token_meter("input"), token_meter("output")
THREE_EVENTS = ((CHARGE_METER, 1_500), (INPUT, 100), (OUTPUT, 20))
SINGLE, STREAM = "POST /v2/billing/meter_events", "POST /v2/billing/meter_event_stream"
SESSION = "POST /v2/billing/meter_event_session"

Transport = Literal["stream", "events"]


class MeteringStand:
    """Customers who use Claude, and what Stripe hears of it."""

    def __init__(self, ledger: Ledger, stripe: StripeStand, metering: MeteringActivities):
        self.ledger, self.stripe, self.metering = ledger, stripe, metering
        self._requests = itertools.count(1)

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.stripe.clock(), UTC)

    async def customer(self, customer_id: str = "acme", *, mapped: bool = True) -> str:
        """Add a customer; returns its id in Stripe, or nothing."""
        async with self.ledger.begin() as tx:
            await customers.add(
                tx, Customer(customer_id=customer_id, name=customer_id, plan="pass-through")
            )
        return await self.map(customer_id) if mapped else ""

    async def map(self, customer_id: str) -> str:
        mapped = await create_customer(self.stripe.client(), customer_id, customer_id)
        async with self.ledger.begin() as tx:
            await customers.set_stripe_customer(tx, customer_id, mapped)
        return mapped

    async def use(
        self,
        customer_id: str = "acme",
        *,
        values: Sequence[tuple[str, int]] = THREE_EVENTS,
        at: datetime | None = None,
    ) -> MeterOrder:
        """Record one answered request, its events in the outbox; returns the order to send."""
        key = RequestKey(customer_id=customer_id, request_id=f"request-{next(self._requests)}")
        served_at = at or self.now()
        async with self.ledger.begin() as tx:
            begun = await attempts.begin(
                tx, NewAttempt(key, "f", "claude", None, 1, 1), served_at, max_unknown=5
            )
            assert isinstance(begun, Begun)
            done = Completion(Outcome.SUCCEEDED, reply={})
            await attempts.complete(tx, begun.attempt_id, done, served_at)
            recorded = await usage.record(
                tx, NewRecord(key, begun.attempt_id, {**_COLUMNS, "served_at": served_at}, values)
            )
        return MeterOrder(key=key, events=recorded.meter_events)

    async def send(
        self, order: MeterOrder, on_heartbeat: Callable[..., None] | None = None
    ) -> MeterReceipt:
        """Run the activity once, as a worker would."""
        environment = ActivityEnvironment()
        if on_heartbeat is not None:
            environment.on_heartbeat = on_heartbeat
        return await environment.run(self.metering.send_meter_events, order)

    async def send_all(self, orders: Sequence[MeterOrder]) -> list[MeterReceipt | BaseException]:
        return await asyncio.gather(*map(self.send, orders), return_exceptions=True)

    async def events(self, order: MeterOrder) -> list[Any]:
        """Return the order's rows of the outbox."""
        async with self.ledger.begin() as tx:
            statement = (
                select(MeterEvent)
                .where(col(MeterEvent.request_id) == order.key.request_id)
                .order_by(col(MeterEvent.meter_event_id))
            )
            return list(await tx.execute(statement))

    async def counted(self) -> dict[str, int]:
        """Return what Stripe will bill, by meter."""
        totals = (await self.stripe.totals())["by_event_name"]
        return {name: int(each["sum"]) for name, each in totals.items() if each["count"]}

    async def calls(self, path: str) -> int:
        return (await self.stripe.totals())["calls"].get(path, 0)

    async def journal(self) -> list[dict[str, Any]]:
        return (await self.stripe.control("GET", "journal"))["entries"]


@asynccontextmanager
async def metering_stand(
    ledger: Ledger, transport: Transport, *, linger: float = 0.02, **options: Any
) -> AsyncGenerator[MeteringStand, None]:
    """Yield a stand with the catalogue set up; every request must have been valid at the end."""
    settings = Settings(stripe_transport=transport, stripe_timeout=10)
    async with stripe_stand(**options) as stripe:
        where = Endpoints(SecretStr("none"), None, SecretStr(LIVE), stripe.url, stripe.url, _NONE)
        async with (
            stripe_client(where, settings) as client,
            meter_transport(where, settings) as way,
        ):
            await ensure_catalog(client)
            stand = MeteringStand(
                ledger,
                stripe,
                MeteringActivities(
                    ledger,
                    way,
                    linger=linger,
                    clock=lambda: datetime.fromtimestamp(stripe.clock(), UTC),
                ),
            )
            yield stand
            await stand.metering.drain()


def ago(stand: MeteringStand, **span: float) -> datetime:
    return stand.now() - timedelta(**span)


_NONE: frozenset[str] = frozenset()
_COLUMNS: dict[str, Any] = {
    "fingerprint": "f",
    "model": "claude",
    "partial": False,
    "prompt_chars": 1,
    "response_chars": 1,
    "input_tokens": 0,
    "output_tokens": 0,
    "cache_write_5m_tokens": 0,
    "cache_write_1h_tokens": 0,
    "cache_read_tokens": 0,
    "web_searches": 0,
    "evidence": {},
    "status": "priced",
    "reason": "",
    "price_book": "test",
    "plan": "pass-through",
    "plan_valid_from": datetime(2026, 1, 1, tzinfo=UTC),
    "lines": [],
    "explanation": "",
    "warnings": [],
}
