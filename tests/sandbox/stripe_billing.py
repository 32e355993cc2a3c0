"""A small business on a Stripe stand: two prices, customers, use, and the way through time."""

import itertools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import stripe

from tests.sandbox.stripe_stand import StripeStand, stripe_stand

BASE_CENTS = "2000"
NANO_USD = "0.0000001"  # cents


def at(text: str) -> int:
    """Return Unix seconds of a time in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


class Business:
    """What its tests do again and again."""

    def __init__(self, stand: StripeStand):
        self.stand, self.stripe = stand, stand.client().v1
        self._numbers = itertools.count(1)

    async def open(self) -> None:
        product = await self.stripe.products.create_async({"name": "Claude"})
        meter = await self.stripe.billing.meters.create_async(
            {
                "display_name": "Charge",
                "event_name": "charge",
                "default_aggregation": {"formula": "sum"},
            }
        )
        self.product, self.meter = product.id, meter.id
        self.base = await self.price(BASE_CENTS)
        self.use_price = await self.price(NANO_USD, meter=meter.id)

    async def price(self, cents: str, *, meter: str | None = None, **recurring: Any) -> str:
        usage: Any = {"usage_type": "metered", "meter": meter} if meter else {}
        made = await self.stripe.prices.create_async(
            {
                "currency": "usd",
                "product": self.product,
                "unit_amount_decimal": cents,  # type: ignore[typeddict-item]
                "recurring": {"interval": "month", **usage, **recurring},
            }
        )
        return made.id

    async def customer(self, card: str | None = "visa", **more: Any) -> str:
        params: Any = {"name": "c", **more}
        if card is not None:
            params["payment_method"] = f"pm_card_{card}"
            params["invoice_settings"] = {"default_payment_method": f"pm_card_{card}"}
        return (await self.stripe.customers.create_async(params)).id

    async def subscribe(self, customer: str, *prices: str, **more: Any) -> stripe.Subscription:
        return await self.stripe.subscriptions.create_async(
            {"customer": customer, "items": [{"price": price} for price in prices], **more}
        )

    async def use(self, customer: str, value: int, when: int | None = None) -> None:
        await self.stripe.billing.meter_events.create_async(
            {
                "event_name": "charge",
                "identifier": f"use-{next(self._numbers)}",
                "payload": {"stripe_customer_id": customer, "value": str(value)},
                **({} if when is None else {"timestamp": when}),
            }
        )

    async def item(self, customer: str, cents: int, **more: Any) -> stripe.InvoiceItem:
        return await self.stripe.invoice_items.create_async(
            {"customer": customer, "amount": cents, "currency": "usd", **more}
        )

    async def invoice(self, customer: str, cents: int, **more: Any) -> stripe.Invoice:
        """Return a finalized one-off invoice; nobody collects it unless told to."""
        await self.item(customer, cents)
        draft = await self.stripe.invoices.create_async(
            {"customer": customer, "pending_invoice_items_behavior": "include", **more}
        )
        return await self.stripe.invoices.finalize_invoice_async(draft.id)

    async def to(self, when: int | str) -> None:
        """Move the clock to an instant."""
        now = at(when) if isinstance(when, str) else when
        await self.stand.control("POST", "clock", now=now)

    async def latest(self, subscription: str) -> stripe.Invoice:
        shown = await self.stripe.subscriptions.retrieve_async(subscription)
        assert isinstance(shown.latest_invoice, str)
        return await self.stripe.invoices.retrieve_async(shown.latest_invoice)

    async def status(self, subscription: str) -> str:
        return (await self.stripe.subscriptions.retrieve_async(subscription)).status

    async def next_charges(self, customer: str, **outcome: Any) -> None:
        await self.stand.control("POST", "outcomes", customer=customer, **outcome)

    async def events(self, *types: str) -> list[stripe.Event]:
        """Return the events of these types, oldest first."""
        found = await self.stripe.events.list_async({"limit": 100, "types": list(types)})
        return found.data[::-1]


@asynccontextmanager
async def business(opened: str = "2026-01-01T00:00:00", **options: Any) -> AsyncGenerator[Business]:
    """Serve a fresh Stripe with the business on it; each call and answer must be valid."""
    async with stripe_stand(**options) as stand:
        stand.clock.now = at(opened)
        made = Business(stand)
        await made.open()
        yield made


def periods(subscription: stripe.Subscription) -> tuple[int, int]:
    first = subscription["items"].data[0]
    return first.current_period_start, first.current_period_end


def amounts(invoice: stripe.Invoice) -> list[int]:
    return [line.amount for line in invoice.lines.data]
