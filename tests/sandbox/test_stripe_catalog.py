"""Customers, products, prices and meters through the official SDK."""

from collections.abc import AsyncGenerator
from decimal import Decimal

import pytest
import stripe

from tests.sandbox.stripe_stand import StripeStand, stripe_stand


@pytest.fixture(name="stand")
async def _stand() -> AsyncGenerator[StripeStand, None]:
    async with stripe_stand() as stand:
        yield stand


async def _meter(client: stripe.StripeClient, name: str = "tokens") -> stripe.billing.Meter:
    return await client.v1.billing.meters.create_async(
        {
            "display_name": "Tokens",
            "event_name": name,
            "default_aggregation": {"formula": "sum"},
            "customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"},
            "value_settings": {"event_payload_key": "value"},
        }
    )


async def test_customers_are_created_found_and_paged(stand: StripeStand) -> None:
    client = stand.client()
    made = [
        await client.v1.customers.create_async({"name": f"c{n}", "metadata": {"n": str(n)}})
        for n in range(12)
    ]
    again = await client.v1.customers.retrieve_async(made[3].id)
    assert (again.name, again.metadata and again.metadata["n"]) == ("c3", "3")
    first = await client.v1.customers.list_async()
    assert [len(first.data), first.has_more] == [10, True]
    names = [each.name async for each in first.auto_paging_iter()]
    assert names == [f"c{n}" for n in reversed(range(12))]


async def test_what_does_not_exist_is_404(stand: StripeStand) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await stand.client().v1.customers.retrieve_async("cus_none")
    assert (caught.value.http_status, caught.value.code) == (404, "resource_missing")


async def test_an_unknown_path_is_404(stand: StripeStand) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await stand.client().v1.coupons.retrieve_async("none")
    assert caught.value.http_status == 404


async def test_a_wrong_key_is_401(stand: StripeStand) -> None:
    with pytest.raises(stripe.AuthenticationError):
        await stand.client("nonsense").v1.customers.list_async()


async def test_a_metered_price_in_tiny_cents_is_found_by_its_lookup_key(stand: StripeStand) -> None:
    client = stand.client()
    meter = await _meter(client)
    product = await client.v1.products.create_async({"id": "usage", "name": "Usage"})
    price = await client.v1.prices.create_async(
        {
            "currency": "usd",
            "product": product.id,
            "unit_amount_decimal": "0.0000001",  # type: ignore[typeddict-item]
            "recurring": {"interval": "month", "usage_type": "metered", "meter": meter.id},
            "lookup_key": "charge",
        }
    )
    assert price.unit_amount_decimal == Decimal("0.0000001")
    found = await client.v1.prices.list_async({"lookup_keys": ["other", "charge"]})
    assert [each.id for each in found.data] == [price.id]
    assert (await client.v1.prices.list_async({"lookup_keys": ["other"]})).data == []
    assert (await client.v1.products.retrieve_async("usage")).name == "Usage"


async def test_a_price_is_refused_without_its_meter_or_with_too_many_decimals(
    stand: StripeStand,
) -> None:
    client = stand.client()
    product = await client.v1.products.create_async({"name": "Usage"})
    with pytest.raises(stripe.InvalidRequestError, match="backed by a meter"):
        await client.v1.prices.create_async(
            {
                "currency": "usd",
                "product": product.id,
                "unit_amount": 1,
                "recurring": {"interval": "month", "usage_type": "metered"},
            }
        )
    with pytest.raises(stripe.InvalidRequestError, match="unit_amount_decimal"):
        await client.v1.prices.create_async(
            {
                "currency": "usd",
                "product": product.id,
                "unit_amount_decimal": "0.0000000000001",  # type: ignore[typeddict-item]
            }
        )


async def test_a_lookup_key_moves_only_when_told_to(stand: StripeStand) -> None:
    client = stand.client()
    product = await client.v1.products.create_async({"name": "Usage"})
    params: stripe.params.PriceCreateParams = {
        "currency": "usd",
        "product": product.id,
        "unit_amount": 1,
        "lookup_key": "charge",
    }
    old = await client.v1.prices.create_async(params)
    with pytest.raises(stripe.InvalidRequestError, match="already uses that lookup key"):
        await client.v1.prices.create_async(params)
    new = await client.v1.prices.create_async({**params, "transfer_lookup_key": True})
    found = await client.v1.prices.list_async({"lookup_keys": ["charge"]})
    assert [each.id for each in found.data] == [new.id]
    assert (await client.v1.prices.retrieve_async(old.id)).lookup_key is None
    gone = await client.v1.prices.update_async(
        old.id, {"active": False, "lookup_key": "charge", "transfer_lookup_key": True}
    )
    assert (gone.active, gone.lookup_key) == (False, "charge")
    assert (await client.v1.prices.retrieve_async(new.id)).lookup_key is None
    renamed = await client.v1.products.update_async(product.id, {"name": "Claude"})
    assert renamed.name == "Claude"


async def test_meters_live_and_have_one_event_name_each(stand: StripeStand) -> None:
    client = stand.client()
    meters = client.v1.billing.meters
    meter = await _meter(client)
    with pytest.raises(stripe.InvalidRequestError, match="event name"):
        await _meter(client)
    assert (await meters.update_async(meter.id, {"display_name": "New"})).display_name == "New"
    assert (await meters.deactivate_async(meter.id)).status == "inactive"
    assert (await meters.list_async({"status": "active"})).data == []
    assert (await meters.reactivate_async(meter.id)).status == "active"
    assert (await meters.retrieve_async(meter.id)).event_name == "tokens"
