"""Subscriptions through the API. Only the flexible billing mode, and one interval for all items."""

from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field

from tallystick.sandbox.stripe import cycles, prorations, subscription_states
from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.endpoint import Call, Endpoint, retrieve
from tallystick.sandbox.stripe.events import updating
from tallystick.sandbox.stripe.lists import Paging, Span, page, within
from tallystick.sandbox.stripe.payment_methods import of_customer
from tallystick.sandbox.stripe.periods import boundary, next_on
from tallystick.sandbox.stripe.wire import (
    Metadata,
    Nested,
    Obj,
    Params,
    Refusal,
    with_metadata,
)

PATH, ITEMS = "/v1/subscriptions", "/v1/subscription_items"
MOST_ITEMS = 20

ProrationBehavior = Literal["create_prorations", "always_invoice", "none"]
CollectionMethod = Literal["charge_automatically", "send_invoice"]
Quantity = Annotated[int, Field(ge=0)]


class NewItem(Nested):
    """A price to subscribe to."""

    price: str
    quantity: Quantity | None = None
    metadata: Metadata | None = None


class ChangedItem(Nested):
    """A change of an item, or a new one where no id is given."""

    id: str | None = None
    price: str | None = None
    quantity: Quantity | None = None
    metadata: Metadata | None = None
    deleted: bool = False


class BillingMode(Nested):
    """How usage and changes are billed."""

    type: Literal["flexible"]


class AnchorConfig(Nested):
    """When periods begin, in UTC; what is not given is as at the creation."""

    day_of_month: Annotated[int, Field(ge=1, le=31)]
    month: Annotated[int, Field(ge=1, le=12)] | None = None
    hour: Annotated[int, Field(ge=0, le=23)] | None = None
    minute: Annotated[int, Field(ge=0, le=59)] | None = None
    second: Annotated[int, Field(ge=0, le=59)] | None = None


class CancellationDetails(Nested):
    """Why."""

    comment: str | None = None
    feedback: str | None = None


class Create(Params):
    """What a new subscription is given."""

    customer: str
    items: Annotated[list[NewItem], Field(min_length=1, max_length=MOST_ITEMS)]
    billing_cycle_anchor: int | None = None
    billing_cycle_anchor_config: AnchorConfig | None = None
    billing_mode: BillingMode = BillingMode(type="flexible")
    cancel_at: int | None = None
    cancel_at_period_end: bool = False
    collection_method: CollectionMethod = "charge_automatically"
    currency: str | None = None
    days_until_due: Annotated[int, Field(ge=0)] | None = None
    default_payment_method: str | None = None
    description: str | None = None
    metadata: Metadata | None = None
    off_session: bool = False
    payment_behavior: Literal["allow_incomplete", "default_incomplete"] = "allow_incomplete"
    proration_behavior: ProrationBehavior = "create_prorations"


class KeptAnchor(Nested):
    """A billing cycle anchor that stays."""

    type: Literal["unchanged"]


class Update(Params):
    """What can change; an empty text unsets."""

    billing_cycle_anchor: Literal["unchanged"] | KeptAnchor | None = None
    cancel_at: int | Literal[""] | None = None
    cancel_at_period_end: bool | None = None
    cancellation_details: CancellationDetails | None = None
    collection_method: CollectionMethod | None = None
    days_until_due: Annotated[int, Field(ge=0)] | None = None
    default_payment_method: str | None = None
    description: str | None = None
    items: Annotated[list[ChangedItem], Field(max_length=MOST_ITEMS)] | None = None
    metadata: Metadata | None = None
    off_session: bool = False
    payment_behavior: Literal["allow_incomplete", "default_incomplete"] = "allow_incomplete"
    proration_behavior: ProrationBehavior = "create_prorations"


class Cancel(Params):
    """How to end it: without `invoice_now`, use not yet invoiced is lost."""

    cancellation_details: CancellationDetails | None = None
    invoice_now: bool = False
    prorate: bool = False


class List(Paging):
    """What subscriptions can be listed by; without a status, all that have not ended."""

    collection_method: CollectionMethod | None = None
    created: Span | int | None = None
    customer: str | None = None
    price: str | None = None
    status: str | None = None


class ItemList(Paging):
    """What items can be listed by."""

    subscription: str


def _price(account: Account, price_id: str, param: str) -> Obj:
    price = account.get("price", price_id, param=param, status=400)
    if not price["active"]:
        raise Refusal(400, f"The price {price_id} is inactive.", param=param)
    if price["recurring"] is None:
        raise Refusal(400, f"The price {price_id} is not recurring.", param=param)
    return price


def _item(
    account: Account,
    subscription_id: str,
    price: Obj,
    told: NewItem | ChangedItem,
    period: tuple[int, int],
) -> Obj:
    metered = price["recurring"]["usage_type"] == "metered"
    if metered and told.quantity is not None:
        raise Refusal(400, "Metered prices have no quantity.", param="items[0][quantity]")
    item: Obj = {
        "object": "subscription_item",
        "created": account.now(),
        "current_period_start": period[0],
        "current_period_end": period[1],
        "discounts": [],
        "metadata": with_metadata({}, told.metadata),
        "price": price,
        "subscription": subscription_id,
        "tax_rates": [],
        "_after": 0,
    }
    if not metered:
        item["quantity"] = 1 if told.quantity is None else told.quantity
    return account.add("subscription_item", "si", item)


def _anchor(params: Create, recurring: Obj, now: int) -> tuple[int, int | None]:
    """Return the anchor, and the day of the month that is meant if it is clamped."""
    config = params.billing_cycle_anchor_config
    if config is not None:
        if params.billing_cycle_anchor is not None:
            raise Refusal(
                400, "You may only specify one of billing_cycle_anchor and its config.",
                param="billing_cycle_anchor_config",
            )  # fmt: skip
        month = config.month if recurring["interval"] == "year" else None
        at = next_on(
            now, config.day_of_month, month=month,
            hour=config.hour, minute=config.minute, second=config.second,
        )  # fmt: skip
        return at, config.day_of_month
    anchor = params.billing_cycle_anchor
    if anchor is None:
        return now, None
    if not now <= anchor <= boundary(now, recurring, 1):
        raise Refusal(
            400,
            "billing_cycle_anchor must be in the future and no later than the next natural "
            "billing date.",
            param="billing_cycle_anchor",
        )
    return anchor, None


def _check_collection(method: str, days: int | None) -> None:
    if (method == "send_invoice") != (days is not None):
        raise Refusal(
            400,
            "days_until_due is needed with collection_method send_invoice, and only then.",
            param="days_until_due",
        )


def _prices(account: Account, params: Create) -> list[Obj]:
    prices = [
        _price(account, item.price, f"items[{n}][price]") for n, item in enumerate(params.items)
    ]
    for key in ("interval", "interval_count"):
        if len({price["recurring"][key] for price in prices}) > 1:
            raise Refusal(400, "All prices must have the same interval here.", param="items")
    if len({price["id"] for price in prices}) < len(prices):
        raise Refusal(400, "A price can be on a subscription once.", param="items")
    return prices


async def create(call: Call, params: Create) -> Obj:
    """Subscribe a customer; the first invoice, if there is one, is final at once."""
    account, now = call.account, call.account.now()
    customer = account.get("customer", params.customer, param="customer", status=400)
    prices = _prices(account, params)
    _check_collection(params.collection_method, params.days_until_due)
    if params.default_payment_method:
        of_customer(
            account, params.default_payment_method, customer["id"], param="default_payment_method"
        )
    recurring = prices[0]["recurring"]
    anchor, day = _anchor(params, recurring, now)
    begin, end, stub = cycles.first_period(anchor, recurring, now, day)
    if stub != 1 and params.proration_behavior == "none":
        stub = Fraction(0)
    if stub and params.payment_behavior == "allow_incomplete":
        _check_method(params, customer, prices)
    subscription = account.add("subscription", "sub", _new(call, params, prices, anchor))
    subscription["_day"] = day
    subscription["items"]["data"] = [
        _item(account, subscription["id"], price, item, (begin, end))
        for item, price in zip(params.items, prices, strict=True)
    ]
    subscription["items"]["url"] += subscription["id"]
    attempt = params.payment_behavior == "allow_incomplete"
    cycles.start(account, subscription, stub=stub, attempt=attempt)
    if params.cancel_at is not None:
        cycles.cancel_at(account, subscription, params.cancel_at)
    return subscription


def _check_method(params: Create, customer: Obj, prices: list[Obj]) -> None:
    """Refuse to begin with a charge that nobody can make."""
    charged = params.collection_method == "charge_automatically"
    due = any(
        price["recurring"]["usage_type"] == "licensed" and float(price["unit_amount_decimal"])
        for price in prices
    )
    default = customer["invoice_settings"]["default_payment_method"]
    if charged and due and not (params.default_payment_method or default):
        raise Refusal(
            400,
            "This customer has no attached payment source or default payment method.",
            code="resource_missing",
        )


def _new(call: Call, params: Create, prices: list[Obj], anchor: int) -> Obj:
    now = call.account.now()
    config = params.billing_cycle_anchor_config
    return {
        "object": "subscription",
        "application": None,
        "application_fee_percent": None,
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": anchor,
        "billing_cycle_anchor_config": config.model_dump() if config else None,
        "billing_mode": {"type": "flexible", "flexible": {}},
        "billing_schedules": [],
        "billing_thresholds": None,
        "cancel_at": params.cancel_at,
        "cancel_at_period_end": params.cancel_at_period_end,
        "canceled_at": now if params.cancel_at_period_end else None,
        "cancellation_details": {"comment": None, "feedback": None, "reason": None},
        "collection_method": params.collection_method,
        "created": now,
        "currency": (params.currency or prices[0]["currency"]).lower(),
        "customer": params.customer,
        "days_until_due": params.days_until_due,
        "default_payment_method": params.default_payment_method,
        "default_source": None,
        "default_tax_rates": [],
        "description": params.description,
        "discounts": [],
        "ended_at": None,
        "invoice_settings": {"account_tax_ids": None, "issuer": {"type": "self"}},
        "items": {
            "object": "list",
            "data": [],
            "has_more": False,
            "url": f"{ITEMS}?subscription=",
        },
        "latest_invoice": None,
        "livemode": call.livemode,
        "metadata": with_metadata({}, params.metadata),
        "next_pending_invoice_item_invoice": None,
        "pause_collection": None,
        "payment_settings": {
            "payment_method_options": None,
            "payment_method_types": None,
            "save_default_payment_method": "off",
        },
        "pending_invoice_item_interval": None,
        "pending_setup_intent": None,
        "pending_update": None,
        "schedule": None,
        "start_date": now,
        "status": "active",
        "test_clock": None,
        "trial_end": None,
        "trial_start": None,
    }


async def update(call: Call, params: Update) -> Obj:
    """Change a subscription."""
    account = call.account
    subscription = account.get("subscription", call.ids["id"])
    ended = subscription["status"] in subscription_states.ENDED
    if ended and params.model_fields_set - {"metadata", "cancellation_details", "expand"}:
        raise Refusal(
            400, "A canceled subscription can only update its cancellation_details and metadata."
        )
    with updating(account, "customer.subscription.updated", subscription):
        subscription["metadata"] = with_metadata(subscription["metadata"], params.metadata)
        _assign_collection(account, subscription, params)
        _assign_ending(account, subscription, params)
        if params.items:
            _assign_items(account, subscription, params)
    if params.items and params.proration_behavior == "always_invoice":
        cycles.invoice_now(account, subscription)
    return subscription


def _assign_collection(account: Account, subscription: Obj, params: Update) -> None:
    method = params.collection_method or subscription["collection_method"]
    days = params.days_until_due
    if days is None and method == subscription["collection_method"]:
        days = subscription["days_until_due"]
    _check_collection(method, days)
    subscription |= {"collection_method": method, "days_until_due": days}
    if params.description is not None:
        subscription["description"] = params.description or None
    if params.default_payment_method is not None:
        chosen = params.default_payment_method
        if chosen:
            customer = subscription["customer"]
            of_customer(account, chosen, customer, param="default_payment_method")
        subscription["default_payment_method"] = chosen or None


def _assign_ending(account: Account, subscription: Obj, params: Update) -> None:
    if params.cancellation_details is not None:
        told = params.cancellation_details.model_dump(exclude_none=True)
        subscription["cancellation_details"] = {**subscription["cancellation_details"], **told}
    if params.cancel_at_period_end is not None:
        subscription["cancel_at_period_end"] = params.cancel_at_period_end
    if params.cancel_at is not None:
        subscription["cancel_at"] = params.cancel_at or None
        if params.cancel_at:
            cycles.cancel_at(account, subscription, params.cancel_at)
    if subscription["status"] in subscription_states.ENDED:
        return
    if subscription["cancel_at_period_end"] or subscription["cancel_at"] is not None:
        subscription["canceled_at"] = subscription["canceled_at"] or account.now()
    else:
        subscription["canceled_at"] = None


def _assign_items(account: Account, subscription: Obj, params: Update) -> None:
    items = {item["id"]: item for item in cycles.items_of(subscription)}
    prorate = params.proration_behavior != "none"
    for n, change in enumerate(params.items or ()):
        old = None
        if change.id is not None:
            if change.id not in items:
                raise Refusal(400, f"No such subscription item: '{change.id}'",
                    code="resource_missing", param=f"items[{n}][id]")  # fmt: skip
            old = items[change.id]
        new = None if change.deleted else _changed(account, subscription, old, change, n)
        prorations.book(account, subscription, old, new, prorate=prorate)
        if new is None:
            items.pop(change.id or "")
        else:
            items[new["id"]] = new
    if not items:
        raise Refusal(400, "A subscription must have an item.", param="items")
    subscription["items"] = {**subscription["items"], "data": list(items.values())}


def _changed(
    account: Account, subscription: Obj, old: Obj | None, change: ChangedItem, n: int
) -> Obj:
    param = f"items[{n}][price]"
    if change.price is None and old is None:
        raise Refusal(400, "Missing required param: price.", param=param)
    price = _price(account, change.price, param) if change.price else (old or {})["price"]
    period = cycles.period_of(subscription)
    quantity = change.quantity
    if old is None:
        new = _item(account, subscription["id"], price, change, period)
        new["_after"] = len(account.journal.entries)
        return new
    new: Obj = {**old, "price": price, "metadata": with_metadata(old["metadata"], change.metadata)}
    if cycles.metered(new):
        new.pop("quantity", None)
        if price["id"] != old["price"]["id"]:
            new["_after"] = len(account.journal.entries)
    else:
        new["quantity"] = old.get("quantity", 1) if quantity is None else quantity
    account.table("subscription_item")[new["id"]] = new
    return new


async def cancel(call: Call, params: Cancel) -> Obj:
    """End a subscription now."""
    account = call.account
    subscription = account.get("subscription", call.ids["id"])
    if subscription["status"] in subscription_states.ENDED:
        raise Refusal(
            404, f"No such subscription: '{subscription['id']}'", code="resource_missing",
            param="id",
        )  # fmt: skip
    details = {"reason": "cancellation_requested"}
    if params.cancellation_details is not None:
        details |= params.cancellation_details.model_dump(exclude_none=True)
    subscription["cancellation_details"] = {**subscription["cancellation_details"], **details}
    if params.prorate:
        for item in cycles.items_of(subscription):
            if not cycles.metered(item):
                prorations.book(account, subscription, item, None, prorate=True)
    cycles.finish(account, subscription, invoice_use=params.invoice_now)
    return subscription


async def listed(call: Call, params: List) -> Obj:
    """List subscriptions, newest first."""
    rows = [
        row
        for row in reversed(call.account.table("subscription").values())
        if params.customer in (None, row["customer"])
        and params.collection_method in (None, row["collection_method"])
        and params.price in (None, *(item["price"]["id"] for item in cycles.items_of(row)))
        and within(row["created"], params.created)
        and _has_status(row["status"], params.status)
    ]
    return page(PATH, rows, params)


def _has_status(status: str, wanted: str | None) -> bool:
    if wanted is None:
        return status != "canceled"
    if wanted == "ended":
        return status in subscription_states.ENDED
    return wanted in ("all", status)


async def listed_items(call: Call, params: ItemList) -> Obj:
    """List a subscription's items."""
    subscription = call.account.get(
        "subscription", params.subscription, param="subscription", status=400
    )
    return page(ITEMS, cycles.items_of(subscription), params)


ENDPOINTS = [
    Endpoint("POST", PATH, Create, create),
    Endpoint("GET", PATH, List, listed),
    Endpoint("GET", ITEMS, ItemList, listed_items),
    retrieve("subscription", PATH + "/{id}"),
    Endpoint("POST", PATH + "/{id}", Update, update),
    Endpoint("DELETE", PATH + "/{id}", Cancel, cancel),
]
