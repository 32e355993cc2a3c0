"""`tallystick stripe setup`: what metering needs, made once, found again."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest
import pytest_asyncio

from activities.stripe_catalog import PRICE_LOOKUP_KEY, PRODUCT_ID, create_customer, ensure_catalog
from tallystick.errors import TallystickError
from tallystick.metering import CHARGE_METER, METERS
from tests.sandbox.stripe_stand import StripeStand, stripe_stand


@pytest_asyncio.fixture(name="stripe")
async def _stripe() -> AsyncIterator[StripeStand]:
    async with stripe_stand() as stand:
        yield stand


async def test_setup_makes_meters_product_and_price(stripe: StripeStand) -> None:
    client = stripe.client()
    catalog = await ensure_catalog(client)
    meters = (await client.v1.billing.meters.list_async({"limit": 100})).data
    assert {meter.event_name: meter.display_name for meter in meters} == dict(METERS)
    assert {meter.event_name: meter.id for meter in meters} == catalog.meters
    assert {meter.default_aggregation.formula for meter in meters} == {"sum"}
    price = await client.v1.prices.retrieve_async(catalog.price_id)
    assert price.unit_amount_decimal == Decimal("0.0000001")
    assert price.lookup_key == PRICE_LOOKUP_KEY
    assert (price.currency, price.product) == ("usd", PRODUCT_ID)
    assert price.recurring is not None
    assert price.recurring.meter == catalog.meters[CHARGE_METER]
    assert len(catalog.made) == len(METERS) + 2


async def test_setup_again_makes_nothing_even_when_keys_are_forgotten(stripe: StripeStand) -> None:
    first = await ensure_catalog(stripe.client())
    stripe.clock.advance(days=2)
    again = await ensure_catalog(stripe.client())
    assert again.made == ()
    assert (again.meters, again.price_id) == (first.meters, first.price_id)


async def test_two_setups_at_once_make_one_catalogue(stripe: StripeStand) -> None:
    one, other = await asyncio.gather(
        ensure_catalog(stripe.client()), ensure_catalog(stripe.client())
    )
    assert (one.meters, one.price_id) == (other.meters, other.price_id)
    assert len(stripe.account.table("meter")) == len(METERS)
    assert len(stripe.account.table("price")) == 1


async def test_setup_recovers_from_lost_answers_and_kept_500s(stripe: StripeStand) -> None:
    for fault in ("no_answer", "server_error", "reset", "unavailable"):
        await stripe.fault(fault, match="POST /v1/prices")
        with pytest.raises(TallystickError, match="Stripe"):
            await ensure_catalog(stripe.client())
        await ensure_catalog(stripe.client())
        stripe.account.table("price").clear()
        stripe.clock.advance(days=2)
    await stripe.fault("server_error", match="POST /v1/products")
    stripe.account.table("product").clear()
    with pytest.raises(TallystickError, match="500"):
        await ensure_catalog(stripe.client())
    assert "product tallystick_claude_usage" in (await ensure_catalog(stripe.client())).made


async def test_an_inactive_meter_is_made_active_again(stripe: StripeStand) -> None:
    client = stripe.client()
    catalog = await ensure_catalog(client)
    await client.v1.billing.meters.deactivate_async(catalog.meters[CHARGE_METER])
    again = await ensure_catalog(client)
    assert again.meters == catalog.meters
    assert again.made == (f"meter {CHARGE_METER} (active again)",)
    meter = await client.v1.billing.meters.retrieve_async(catalog.meters[CHARGE_METER])
    assert meter.status == "active"


async def test_a_price_that_charges_otherwise_loses_the_lookup_key(stripe: StripeStand) -> None:
    client = stripe.client()
    catalog = await ensure_catalog(client)
    stripe.account.table("price")[catalog.price_id]["unit_amount_decimal"] = "0.1"
    stripe.clock.advance(days=2)
    again = await ensure_catalog(client)
    assert again.made == (f"price {PRICE_LOOKUP_KEY}",)
    found = await client.v1.prices.list_async({"lookup_keys": [PRICE_LOOKUP_KEY]})
    assert [price.id for price in found.data] == [again.price_id]


async def test_a_customer_is_created_once_a_day_and_carries_our_id(stripe: StripeStand) -> None:
    client = stripe.client()
    first = await create_customer(client, "acme", "Acme Ltd")
    assert await create_customer(client, "acme", "Acme Ltd") == first
    assert await create_customer(client, "bolt", "Bolt Ltd") != first
    customer = await client.v1.customers.retrieve_async(first)
    assert customer.metadata is not None
    assert customer.metadata["tallystick_customer_id"] == "acme"


async def test_a_wrong_key_is_told_in_words(stripe: StripeStand) -> None:
    with pytest.raises(TallystickError, match="Stripe answered 401"):
        await ensure_catalog(stripe.client("nonsense"))
