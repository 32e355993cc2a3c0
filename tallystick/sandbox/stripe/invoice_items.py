"""Invoice items: amounts that wait for the customer's next invoice, or go on a draft at once."""

from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any

from pydantic import Field, model_validator

from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.endpoint import Call, Endpoint, retrieve
from tallystick.sandbox.stripe.events import emit
from tallystick.sandbox.stripe.lines import (
    MOST_ITEMS,
    add_item,
    cents,
    count_items,
    drop_item,
    pricing_of,
)
from tallystick.sandbox.stripe.lists import Paging, Span, page, within
from tallystick.sandbox.stripe.subscription_states import subscription_of
from tallystick.sandbox.stripe.wire import Metadata, Nested, Obj, Params, Refusal, with_metadata

PATH = "/v1/invoiceitems"

Exact = Annotated[Decimal, Field(decimal_places=12)]


class Period(Nested):
    """What time it is for, in Unix seconds."""

    start: int
    end: int


class Pricing(Nested):
    """A one-time price."""

    price: str


class Create(Params):
    """An amount in cents, a quantity of a unit amount in cents, or of a price."""

    customer: str
    amount: int | None = None
    currency: str | None = None
    description: str | None = None
    discountable: bool = True
    invoice: str | None = None
    metadata: Metadata | None = None
    period: Period | None = None
    pricing: Pricing | None = None
    quantity: Annotated[int, Field(ge=0)] | None = None
    quantity_decimal: Annotated[Exact, Field(ge=0)] | None = None
    subscription: str | None = None
    unit_amount_decimal: Exact | None = None

    @model_validator(mode="after")
    def _one_amount(self) -> "Create":
        told = (self.amount, self.unit_amount_decimal, self.pricing)
        if sum(each is not None for each in told) != 1:
            raise ValueError("give one of amount, unit_amount_decimal and pricing")
        counted = self.quantity is not None or self.quantity_decimal is not None
        if self.amount is not None and counted:
            raise ValueError("an amount has no quantity")
        if self.quantity is not None and self.quantity_decimal is not None:
            raise ValueError("give one of quantity and quantity_decimal")
        return self


class List(Paging):
    """What invoice items can be listed by."""

    created: Span | int | None = None
    customer: str | None = None
    invoice: str | None = None
    pending: bool | None = None


def _draft(account: Account, invoice_id: str, customer_id: str) -> Obj:
    invoice = account.get("invoice", invoice_id, param="invoice", status=400)
    if invoice["status"] != "draft":
        raise Refusal(
            400,
            f"The invoice {invoice_id} is no longer a draft; items can only be added to drafts.",
            code="invoice_not_editable",
            param="invoice",
        )
    if invoice["customer"] != customer_id:
        raise Refusal(400, "The invoice belongs to another customer.", param="invoice")
    return invoice


def _room(invoice: Obj) -> Obj:
    if count_items(invoice) >= MOST_ITEMS:
        raise Refusal(
            400, f"An invoice can have {MOST_ITEMS} invoice items at most.", param="invoice"
        )
    return invoice


def unit_pricing(unit_cents: Decimal) -> Obj:
    """Return how a line tells a unit amount that no price of the catalogue has."""
    return {"type": "price_details", "unit_amount_decimal": f"{unit_cents:f}"}


def add(
    account: Account,
    customer: Obj,
    *,
    amount: int,
    quantity: Decimal = Decimal(1),
    pricing: Obj | None = None,
    parent: Obj | None = None,
    period: tuple[int, int],
    **fields: Any,
) -> Obj:
    """Make a pending invoice item."""
    item = account.add(
        "invoiceitem",
        "ii",
        {
            "object": "invoiceitem",
            "amount": amount,
            "currency": customer["currency"] or "usd",
            "customer": customer["id"],
            "date": account.now(),
            "description": None,
            "discountable": True,
            "discounts": [],
            "invoice": None,
            "livemode": customer["livemode"],
            "metadata": {},
            "parent": parent,
            "period": {"start": period[0], "end": period[1]},
            "pricing": pricing or unit_pricing(Decimal(amount)),
            "proration": False,
            "quantity": int(quantity),
            "quantity_decimal": f"{quantity:f}",
            "tax_rates": [],
            **fields,
        },
    )
    emit(account, "invoiceitem.created", item)
    return item


def of_subscription(subscription_id: str, **fields: str) -> Obj:
    """Return the parent of an item that belongs to a subscription."""
    details = {"subscription": subscription_id, **fields}
    return {"type": "subscription_details", "subscription_details": details}


async def create(call: Call, params: Create) -> Obj:
    """Make an invoice item, on a draft where one is named."""
    account = call.account
    customer = account.get("customer", params.customer, param="customer", status=400)
    draft = None
    if params.invoice is not None:
        draft = _room(_draft(account, params.invoice, customer["id"]))
    parent = None
    if params.subscription is not None:
        account.get("subscription", params.subscription, param="subscription", status=400)
        parent = of_subscription(params.subscription)
    price = None
    if params.pricing is not None:
        price = account.get("price", params.pricing.price, param="pricing[price]", status=400)
        if price["type"] != "one_time":
            raise Refusal(400, "The price must be a one-time price.", param="pricing[price]")
    unit = Decimal(price["unit_amount_decimal"]) if price else params.unit_amount_decimal
    quantity = params.quantity_decimal
    if quantity is None:
        quantity = Decimal(1 if params.quantity is None else params.quantity)
    amount = cents(Fraction(quantity), unit) if unit is not None else params.amount or 0
    now = account.now()
    period = params.period or Period(start=now, end=now)
    item = add(
        account,
        customer,
        amount=amount,
        quantity=quantity,
        parent=parent,
        period=(period.start, period.end),
        currency=(params.currency or (draft or customer)["currency"] or "usd").lower(),
        description=params.description,
        discountable=params.discountable,
        metadata=with_metadata({}, params.metadata),
        pricing=pricing_of(price) if price else unit_pricing(unit) if unit is not None else None,
    )
    if draft is not None:
        add_item(account, draft, item)
    return item


def pending_of(
    account: Account, customer_id: str, subscription_id: str | None, *, exactly: bool = False
) -> list[Obj]:
    """Return a customer's items on no invoice yet, oldest first: those of one subscription and,
    unless `exactly`, those of none.
    """
    wanted = {subscription_id} if exactly else {subscription_id, None}
    return [
        item
        for item in account.table("invoiceitem").values()
        if item["invoice"] is None
        and item["customer"] == customer_id
        and subscription_of(item) in wanted
    ]


def release(account: Account, invoice: Obj) -> None:
    """Let the items of a draft wait again."""
    for item in account.table("invoiceitem").values():
        if item["invoice"] == invoice["id"]:
            item["invoice"] = None


async def delete(call: Call, _: Params) -> Obj:
    """Delete an item that is on no final invoice."""
    account = call.account
    item = account.get("invoiceitem", call.ids["id"])
    if item["invoice"] is not None:
        drop_item(account, _draft(account, item["invoice"], item["customer"]), item["id"])
    del account.table("invoiceitem")[item["id"]]
    emit(account, "invoiceitem.deleted", item)
    return {"id": item["id"], "object": "invoiceitem", "deleted": True}


async def listed(call: Call, params: List) -> Obj:
    """List invoice items, newest first."""
    rows = [
        row
        for row in reversed(call.account.table("invoiceitem").values())
        if params.customer in (None, row["customer"])
        and params.invoice in (None, row["invoice"])
        and params.pending in (None, row["invoice"] is None)
        and within(row["date"], params.created)
    ]
    return page(PATH, rows, params)


ENDPOINTS = [
    Endpoint("POST", PATH, Create, create),
    Endpoint("GET", PATH, List, listed),
    retrieve("invoiceitem", PATH + "/{id}"),
    Endpoint("DELETE", PATH + "/{id}", Params, delete),
]
