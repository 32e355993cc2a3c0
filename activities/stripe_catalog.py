"""What has to exist in a Stripe account: meters, products, the price of a charge, base fees.

Everything is looked for first, by the name that code relies on (a meter's event name, a product's
id, a price's lookup key), so setup can be run at any time. What is missing is created under an
idempotency key that is a function of its parameters: two setups at once, or one whose answer was
lost, create it once (`stripe_once`).

A base fee is a price of its own for each amount, since Stripe's prices cannot change: plans with
the same fee share it, and a subscription that moves to another fee is moved to its price.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

import stripe
from stripe import Price, StripeClient

from activities.stripe_clients import in_words
from activities.stripe_once import create_once
from tallystick.metering import CHARGE_METER, METERS
from tallystick.money import NANO_PER_USD, plain

PRODUCT_ID = "tallystick_claude_usage"
BASE_PRODUCT_ID = "tallystick_base_fee"
PRICE_LOOKUP_KEY = CHARGE_METER
CENTS_PER_UNIT = Decimal(100) / NANO_PER_USD
"""One unit is one nano-USD: 0.0000001 cents."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Catalog:
    """What is in Stripe: meter ids by event name, product, price of a charge, prices of base fees
    by their cents, and what was made just now."""

    meters: Mapping[str, str]
    product_id: str
    price_id: str
    base_price_ids: Mapping[int, str]
    made: tuple[str, ...]


async def ensure_catalog(
    client: StripeClient, base_fees_cents: Collection[int] = frozenset()
) -> Catalog:
    """Bring Stripe to what metering and these monthly base fees need; what is there stays as it is.

    Raises:
        TallystickError: saying what Stripe answered.
    """
    made: list[str] = []
    with in_words():
        meters = await _meters(client, made)
        product_id = await _product(client, PRODUCT_ID, "Claude usage", made)
        price_id = await _metered_price(client, meters[CHARGE_METER], product_id, made)
        base = {cents: await _base_price(client, cents, made) for cents in sorted(base_fees_cents)}
    return Catalog(meters, product_id, price_id, base, tuple(made))


async def metered_price(client: StripeClient) -> str:
    """Return the price of a charge in Stripe, made now where it is missing.

    Raises:
        stripe.StripeError: as the SDK raised it.
    """
    made: list[str] = []
    meters = await _meters(client, made)
    product_id = await _product(client, PRODUCT_ID, "Claude usage", made)
    return await _metered_price(client, meters[CHARGE_METER], product_id, made)


async def base_price(client: StripeClient, cents: int) -> str:
    """Return the price of a monthly base fee of so many cents, made now where it is missing.

    Raises:
        stripe.StripeError: as the SDK raised it.
    """
    return await _base_price(client, cents, [])


async def missing_meters(client: StripeClient) -> list[str]:
    """Return the event names of the meters that Stripe lacks; events for them would be lost.

    Raises:
        TallystickError: saying what Stripe answered.
    """
    with in_words():
        listed = await client.v1.billing.meters.list_async({"limit": 100, "status": "active"})
        found = {meter.event_name async for meter in listed.auto_paging_iter()}
    return [name for name in METERS if name not in found]


async def create_customer(client: StripeClient, customer_id: str, name: str) -> str:
    """Create a Stripe customer for one of ours and return its id; again within a day, the same.

    Raises:
        TallystickError: saying what Stripe answered.
    """
    params: Any = {"name": name, "metadata": {"tallystick_customer_id": customer_id}}
    with in_words():
        return (await _create(client.v1.customers.create_async, params)).id


async def _meters(client: StripeClient, made: list[str]) -> Mapping[str, str]:
    service = client.v1.billing.meters
    listed = await service.list_async({"limit": 100})
    found = {meter.event_name: meter async for meter in listed.auto_paging_iter()}
    for event_name, display_name in METERS.items():
        meter = found.get(event_name)
        if meter is None:
            params: Any = {
                "display_name": display_name,
                "event_name": event_name,
                "default_aggregation": {"formula": "sum"},
                "customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"},
                "value_settings": {"event_payload_key": "value"},
            }
            found[event_name] = await _create(service.create_async, params)
            made.append(f"meter {event_name}")
        elif meter.status != "active":
            # An inactive meter takes no events, and its event name cannot be given to another.
            await service.reactivate_async(meter.id)
            made.append(f"meter {event_name} (active again)")
    return {event_name: found[event_name].id for event_name in METERS}


async def _product(client: StripeClient, product_id: str, name: str, made: list[str]) -> str:
    try:
        return (await client.v1.products.retrieve_async(product_id)).id
    except stripe.InvalidRequestError as error:
        if error.code != "resource_missing":
            raise
    params: Any = {"id": product_id, "name": name}
    made.append(f"product {product_id}")
    return (await _create(client.v1.products.create_async, params)).id


async def _metered_price(
    client: StripeClient, meter_id: str, product_id: str, made: list[str]
) -> str:
    params: Any = {
        "currency": "usd",
        "product": product_id,
        "nickname": "Claude usage, by the nano-USD",
        "recurring": {"interval": "month", "usage_type": "metered", "meter": meter_id},
        "unit_amount_decimal": plain(CENTS_PER_UNIT),
    }
    return await _price(
        client, PRICE_LOOKUP_KEY, params, made, fits=lambda price: _charges(price, meter_id)
    )


async def _base_price(client: StripeClient, cents: int, made: list[str]) -> str:
    params: Any = {
        "currency": "usd",
        "product": await _product(client, BASE_PRODUCT_ID, "Base fee", made),
        "nickname": f"Base fee of ${Decimal(cents).scaleb(-2):,.2f} a month",
        "recurring": {"interval": "month"},
        "unit_amount": cents,
    }
    return await _price(
        client, f"tallystick-base-{cents}", params, made, fits=lambda price: _is_fee(price, cents)
    )


async def _price(
    client: StripeClient,
    lookup_key: str,
    params: Mapping[str, Any],
    made: list[str],
    *,
    fits: Callable[[Price], bool],
) -> str:
    found = await client.v1.prices.list_async({"lookup_keys": [lookup_key]})
    for price in found.data:
        if fits(price):
            return price.id
    made.append(f"price {lookup_key}")
    named = {**params, "lookup_key": lookup_key, "transfer_lookup_key": True}
    return (await _create(client.v1.prices.create_async, named)).id


def _charges(price: Price, meter_id: str) -> bool:
    recurring = price.recurring
    return (
        _is_monthly(price)
        and price.unit_amount_decimal == CENTS_PER_UNIT
        and recurring is not None
        and recurring.meter == meter_id
    )


def _is_fee(price: Price, cents: int) -> bool:
    recurring = price.recurring
    return (
        _is_monthly(price)
        and price.unit_amount == cents
        and recurring is not None
        and recurring.usage_type == "licensed"
    )


def _is_monthly(price: Price) -> bool:
    recurring = price.recurring
    return (
        price.active
        and price.currency == "usd"
        and recurring is not None
        and (recurring.interval, recurring.interval_count) == ("month", 1)
    )


async def _create(create: Callable[[Any, Any], Awaitable[T]], params: Mapping[str, Any]) -> T:
    digest = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()
    return await create_once(create, params, f"tallystick-{digest}")
