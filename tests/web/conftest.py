"""The web app on real HTTP over a real ledger; who signs its webhooks is up to the test."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest_asyncio
from pydantic import SecretStr
from sqlalchemy import select
from sqlmodel import col
from stripe import WebhookSignature

from tallystick.ledger.account_tables import Notice, StripeEvent
from tallystick.ledger.database import Ledger, entity
from tallystick.web.app import create_app
from tallystick.web.health import Thresholds
from tallystick.web.serving import serve

OLD, NEW = "whsec_old", "whsec_new"
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def invoice_event(event_id: str, **changes: Any) -> dict[str, Any]:
    """Return a snapshot event as Stripe words it, with much in it that must not be kept."""
    return {
        "id": event_id,
        "object": "event",
        "api_version": "2026-10-28.endive",
        "created": 1_795_000_000,
        "type": "invoice.paid",
        "livemode": True,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "data": {
            "object": {
                "id": "in_1",
                "object": "invoice",
                "customer": "cus_1",
                "customer_address": {"line1": "Marker Street 4242"},
                "payment_settings": {"card": "marker-4242"},
            }
        },
        **changes,
    }


@dataclass
class Door:
    """The app, as Stripe and a monitor see it, and what is behind it."""

    http: httpx.AsyncClient
    ledger: Ledger
    woken: list[None]

    async def deliver(self, event: Any, *, secret: str = NEW, at: datetime = NOW) -> httpx.Response:
        """Deliver an event as Stripe would: its body signed at an instant."""
        body = event if isinstance(event, str) else json.dumps(event)
        signed = WebhookSignature.generate_signature_header(body, secret, int(at.timestamp()))
        return await self.post(body, signed)

    async def post(self, body: str | bytes, header: str) -> httpx.Response:
        headers = {"Stripe-Signature": header} if header else {}
        return await self.http.post("/webhooks/stripe", content=body, headers=headers)

    async def health(self) -> Any:
        return (await self.http.get("/health")).json()

    async def metrics(self) -> str:
        return (await self.http.get("/metrics")).text

    async def events(self) -> list[StripeEvent]:
        statement = select(StripeEvent).order_by(col(StripeEvent.event_id))
        async with self.ledger.begin() as tx:
            return [entity(StripeEvent, row) for row in await tx.execute(statement)]

    async def notices(self) -> list[Notice]:
        async with self.ledger.begin() as tx:
            return [entity(Notice, row) for row in await tx.execute(select(Notice))]


@asynccontextmanager
async def open_door(ledger: Ledger) -> AsyncIterator[Door]:
    """Serve the app with two signing secrets, on a clock that stands at `NOW`."""
    woken: list[None] = []
    app = create_app(
        ledger,
        [SecretStr(OLD), SecretStr(NEW)],
        thresholds=Thresholds(age=300, depth=2),
        wake=lambda: woken.append(None),
        clock=lambda: NOW,
    )
    async with (
        serve(app, host="127.0.0.1", port=0) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as http,
    ):
        yield Door(http, ledger, woken)
    await ledger.close()


@pytest_asyncio.fixture
async def door(ledger: Ledger) -> AsyncIterator[Door]:
    """A door to the test's own ledger."""
    async with open_door(ledger) as made:
        yield made
