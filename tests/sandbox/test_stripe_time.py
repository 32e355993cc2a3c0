"""The Stripe stand-in's clock, and answers kept under idempotency keys where money is asked for."""

import time
from collections.abc import AsyncGenerator

import httpx
import pytest
import stripe

from tallystick.sandbox.server import serve
from tallystick.sandbox.stripe import create_stripe_app
from tallystick.sandbox.stripe.timeline import Timeline
from tests.sandbox.listener import listener
from tests.sandbox.stripe_billing import Business, business


@pytest.fixture(name="shop")
async def _shop() -> AsyncGenerator[Business, None]:
    async with business() as shop:
        yield shop


async def test_what_falls_due_is_done_in_order_and_sees_its_own_instant() -> None:
    source = 100.0
    timeline = Timeline(lambda: source)
    done: list[tuple[str, float]] = []

    def note(name: str) -> None:
        done.append((name, timeline()))

    def follow_up() -> None:
        note("first")
        timeline.at(115, lambda: note("follow-up"))
        timeline.at(50, lambda: note("overdue"))

    timeline.at(120, lambda: note("last"))
    timeline.at(110, follow_up)
    timeline.at(110, lambda: note("second"))
    timeline.at(131, lambda: note("not yet"))
    source = 130.0
    timeline.catch_up()
    assert done == [
        ("first", 110), ("second", 110), ("overdue", 110), ("follow-up", 115), ("last", 120),
    ]  # fmt: skip
    assert timeline() == 130


async def test_the_clock_stands_once_set_only_goes_forward_and_tells_what_is_next(
    shop: Business,
) -> None:
    draft = await shop.stripe.invoices.create_async(
        {"customer": await shop.customer(), "auto_advance": True}
    )
    await shop.to(draft.created + 60)
    clock = await shop.stand.control("GET", "clock")
    assert clock == {"now": draft.created + 60, "running": False, "next": draft.created + 3600}
    with pytest.raises(httpx.HTTPStatusError):
        await shop.to(draft.created)
    await shop.stand.control("POST", "clock", advance=30)
    assert (await shop.stripe.customers.create_async({})).created == draft.created + 90


async def test_without_being_set_things_fall_due_in_real_time_and_unasked() -> None:
    async with serve(create_stripe_app()) as url, listener() as ear:
        client = stripe.StripeClient(
            "sk_test_x", base_addresses={"api": url}, http_client=stripe.HTTPXClient()
        )
        order = {"url": ear.url, "secret": "s", "events": ["invoice.finalized"]}
        async with httpx.AsyncClient(base_url=url, timeout=60) as control:
            (await control.post("/_sandbox/webhooks", json=order)).raise_for_status()
        customer = await client.v1.customers.create_async({})
        await client.v1.invoices.create_async(
            {
                "customer": customer.id,
                "auto_advance": True,
                "automatically_finalizes_at": int(time.time()) + 1,
            }
        )
        await ear.until(lambda ear: len(ear.heard) == 1)
        await client._requestor._client.close_async()


async def test_an_item_whose_answer_is_lost_is_made_once_under_its_key(shop: Business) -> None:
    customer = await shop.customer()
    await shop.stand.fault("no_answer", match="invoiceitems")
    params: stripe.params.InvoiceItemCreateParams = {
        "customer": customer,
        "amount": 700,
        "currency": "usd",
    }
    with pytest.raises(stripe.APIConnectionError):
        await shop.stripe.invoice_items.create_async(params, {"idempotency_key": "k"})
    again = await shop.stripe.invoice_items.create_async(params, {"idempotency_key": "k"})
    pending = await shop.stripe.invoice_items.list_async({"customer": customer})
    assert [item.id for item in pending.data] == [again.id]


async def test_a_declined_payment_and_a_500_are_replayed_under_their_keys(shop: Business) -> None:
    customer = await shop.customer("chargeDeclined")
    invoice = await shop.invoice(customer, 1000)
    for _ in range(2):
        with pytest.raises(stripe.CardError):
            await shop.stripe.invoices.pay_async(invoice.id, {}, {"idempotency_key": "pay"})
    assert len(await shop.events("invoice.payment_failed")) == 1
    await shop.stand.fault("server_error", match="invoiceitems")
    params: stripe.params.InvoiceItemCreateParams = {
        "customer": customer,
        "amount": 700,
        "currency": "usd",
    }
    for _ in range(2):
        with pytest.raises(stripe.APIError) as caught:
            await shop.stripe.invoice_items.create_async(params, {"idempotency_key": "item"})
        assert caught.value.http_status == 500
    assert (await shop.stripe.invoice_items.list_async({"pending": True})).data == []
    await shop.stripe.invoice_items.create_async(params, {"idempotency_key": "item#2"})
