"""What `tallystick stripe setup` creates: the meters, one product, and the price of a charge.

Everything is looked for first, by the name that code relies on (a meter's event name, the product's
id, the price's lookup key), so setup can be run at any time. What is missing is created under an
idempotency key that is a function of its parameters: two setups at once, or one whose answer was
lost, create it once. v1 replays a stored 500 for a day under the same key, so a replayed one is
tried again under the next key of a fixed row (facts on Stripe, 'SDK').
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar, cast

import stripe
from stripe import Price, StripeClient

from activities.stripe_clients import in_words
from tallystick.metering import CHARGE_METER, METERS
from tallystick.money import NANO_PER_USD, plain

PRODUCT_ID = "tallystick_claude_usage"
PRICE_LOOKUP_KEY = CHARGE_METER
CENTS_PER_UNIT = Decimal(100) / NANO_PER_USD
"""One unit is one nano-USD: 0.0000001 cents."""

_KEYS_PER_CREATION = 5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Catalog:
    """What is in Stripe: meter ids by event name, product, price, and what was made just now."""

    meters: Mapping[str, str]
    product_id: str
    price_id: str
    made: tuple[str, ...]


async def ensure_catalog(client: StripeClient) -> Catalog:
    """Bring Stripe to what metering needs; what is there already is left alone.

    Raises:
        TallystickError: saying what Stripe answered.
    """
    made: list[str] = []
    with in_words():
        meters = await _meters(client, made)
        product_id = await _product(client, made)
        price_id = await _price(client, meters[CHARGE_METER], product_id, made)
    return Catalog(meters, product_id, price_id, tuple(made))


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


async def _product(client: StripeClient, made: list[str]) -> str:
    try:
        return (await client.v1.products.retrieve_async(PRODUCT_ID)).id
    except stripe.InvalidRequestError as error:
        if error.code != "resource_missing":
            raise
    params: Any = {"id": PRODUCT_ID, "name": "Claude usage"}
    made.append(f"product {PRODUCT_ID}")
    return (await _create(client.v1.products.create_async, params)).id


async def _price(client: StripeClient, meter_id: str, product_id: str, made: list[str]) -> str:
    found = await client.v1.prices.list_async({"lookup_keys": [PRICE_LOOKUP_KEY]})
    for price in found.data:
        if _charges_nano_usd(price, meter_id):
            return price.id
    params: Any = {
        "currency": "usd",
        "product": product_id,
        "nickname": "Claude usage, by the nano-USD",
        "recurring": {"interval": "month", "usage_type": "metered", "meter": meter_id},
        "unit_amount_decimal": plain(CENTS_PER_UNIT),
        "lookup_key": PRICE_LOOKUP_KEY,
        "transfer_lookup_key": True,
    }
    made.append(f"price {PRICE_LOOKUP_KEY}")
    return (await _create(client.v1.prices.create_async, params)).id


def _charges_nano_usd(price: Price, meter_id: str) -> bool:
    return (
        price.active
        and price.currency == "usd"
        and price.unit_amount_decimal == CENTS_PER_UNIT
        and price.recurring is not None
        and price.recurring.interval == "month"
        and price.recurring.meter == meter_id
    )


async def _create(create: Callable[[Any, Any], Awaitable[T]], params: Mapping[str, Any]) -> T:
    digest = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()
    for turn in range(1, _KEYS_PER_CREATION):
        try:
            return await create(params, {"idempotency_key": f"tallystick-{digest}-{turn}"})
        except stripe.APIError as error:
            headers = cast("Mapping[str, str]", error.headers or {})
            if headers.get("idempotent-replayed") != "true":
                raise
    return await create(params, {"idempotency_key": f"tallystick-{digest}-{_KEYS_PER_CREATION}"})
