"""Products and prices, metered ones above all."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.endpoint import Call, Endpoint, retrieve
from tallystick.sandbox.stripe.lists import Paging, page
from tallystick.sandbox.stripe.wire import Metadata, Obj, Params, Refusal, with_metadata

PRODUCTS, PRICES = "/v1/products", "/v1/prices"


class ProductCreate(Params):
    """What a new product can be given; `id` may be the caller's own."""

    name: str
    id: str | None = None
    active: bool = True
    description: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict[str, str])
    unit_label: str | None = None


class ProductUpdate(Params):
    """What of a product can change."""

    active: bool | None = None
    description: str | None = None
    metadata: Metadata | None = None
    name: str | None = None


class ProductList(Paging):
    """What products can be listed by."""

    active: bool | None = None
    ids: list[str] | None = None


class Recurring(BaseModel):
    """How a price recurs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    interval: Literal["day", "week", "month", "year"]
    interval_count: Annotated[int, Field(ge=1)] = 1
    usage_type: Literal["licensed", "metered"] = "licensed"
    meter: str | None = None


class PriceCreate(Params):
    """What a new price can be given. Amounts are in cents, with 12 decimals at most."""

    currency: str
    product: str
    active: bool = True
    unit_amount: int | None = None
    unit_amount_decimal: Annotated[Decimal, Field(ge=0, decimal_places=12)] | None = None
    recurring: Recurring | None = None
    lookup_key: Annotated[str, Field(max_length=200)] | None = None
    transfer_lookup_key: bool = False
    nickname: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict[str, str])
    billing_scheme: Literal["per_unit"] = "per_unit"
    tax_behavior: Literal["exclusive", "inclusive", "unspecified"] = "unspecified"

    @model_validator(mode="after")
    def _one_amount(self) -> "PriceCreate":
        if (self.unit_amount is None) == (self.unit_amount_decimal is None):
            raise ValueError("exactly one of unit_amount and unit_amount_decimal is needed")
        return self


class PriceUpdate(Params):
    """What of a price can change; what it costs never does."""

    active: bool | None = None
    lookup_key: Annotated[str, Field(max_length=200)] | None = None
    metadata: Metadata | None = None
    nickname: str | None = None
    transfer_lookup_key: bool = False


class PriceList(Paging):
    """What prices can be listed by."""

    active: bool | None = None
    lookup_keys: Annotated[list[str], Field(max_length=10)] | None = None
    product: str | None = None


async def create_product(call: Call, params: ProductCreate) -> Obj:
    """Make a product."""
    now = call.account.now()
    product: Obj = {
        "object": "product",
        "active": params.active,
        "created": now,
        "default_price": None,
        "description": params.description,
        "images": [],
        "livemode": call.livemode,
        "marketing_features": [],
        "metadata": params.metadata,
        "name": params.name,
        "package_dimensions": None,
        "shippable": None,
        "tax_code": None,
        "unit_label": params.unit_label,
        "updated": now,
        "url": None,
    }
    own_id = {"id": params.id} if params.id else {}
    return call.account.add("product", "prod", own_id | product)


async def list_products(call: Call, params: ProductList) -> Obj:
    """List products, newest first."""
    rows = [
        row
        for row in reversed(call.account.table("product").values())
        if params.active in (None, row["active"])
        and (params.ids is None or row["id"] in params.ids)
    ]
    return page(PRODUCTS, rows, params)


async def update_product(call: Call, params: ProductUpdate) -> Obj:
    """Change a product."""
    product = call.account.get("product", call.ids["id"])
    product |= params.model_dump(include={"active", "description", "name"}, exclude_none=True)
    product |= {
        "metadata": with_metadata(product["metadata"], params.metadata),
        "updated": call.account.now(),
    }
    return product


async def create_price(call: Call, params: PriceCreate) -> Obj:
    """Make a price; a metered one needs an active meter, a lookup key has one price at a time."""
    account = call.account
    account.get("product", params.product, param="product", status=400)
    recurring = params.recurring
    if recurring is not None:
        _check_meter(account, recurring)
    if params.lookup_key is not None:
        _take_lookup_key(account, params.lookup_key, transfer=params.transfer_lookup_key)
    cents = params.unit_amount_decimal
    if cents is None:
        cents = Decimal(params.unit_amount or 0)
    whole = cents == cents.to_integral_value()
    return account.add(
        "price",
        "price",
        {
            "object": "price",
            "active": params.active,
            "billing_scheme": params.billing_scheme,
            "created": account.now(),
            "currency": params.currency.lower(),
            "custom_unit_amount": None,
            "livemode": call.livemode,
            "lookup_key": params.lookup_key,
            "metadata": params.metadata,
            "nickname": params.nickname,
            "product": params.product,
            "recurring": recurring.model_dump() if recurring else None,
            "tax_behavior": params.tax_behavior,
            "tiers_mode": None,
            "transform_quantity": None,
            "type": "recurring" if recurring else "one_time",
            "unit_amount": int(cents) if whole else None,
            "unit_amount_decimal": f"{cents:f}",
        },
    )


async def update_price(call: Call, params: PriceUpdate) -> Obj:
    """Change a price; who has it keeps it when it is made inactive."""
    price = call.account.get("price", call.ids["id"])
    if params.lookup_key not in (None, price["lookup_key"]):
        _take_lookup_key(call.account, params.lookup_key or "", transfer=params.transfer_lookup_key)
        price["lookup_key"] = params.lookup_key
    price |= params.model_dump(include={"active", "nickname"}, exclude_none=True)
    price["metadata"] = with_metadata(price["metadata"], params.metadata)
    return price


def _check_meter(account: Account, recurring: Recurring) -> None:
    if recurring.usage_type == "metered":
        if recurring.meter is None:
            raise Refusal(
                400, "Metered prices must be backed by a meter.", param="recurring[meter]"
            )
        meter = account.get("meter", recurring.meter, param="recurring[meter]", status=400)
        if meter["status"] != "active":
            raise Refusal(400, "The meter is inactive.", param="recurring[meter]")
    elif recurring.meter is not None:
        raise Refusal(400, "Only metered prices have a meter.", param="recurring[meter]")


def _take_lookup_key(account: Account, key: str, *, transfer: bool) -> None:
    for holder in account.table("price").values():
        if holder["lookup_key"] == key:
            if not transfer:
                raise Refusal(
                    400,
                    f"A price (`{holder['id']}`) already uses that lookup key.",
                    param="lookup_key",
                )
            holder["lookup_key"] = None


async def list_prices(call: Call, params: PriceList) -> Obj:
    """List prices, newest first."""
    rows = [
        row
        for row in reversed(call.account.table("price").values())
        if params.active in (None, row["active"])
        and params.product in (None, row["product"])
        and (params.lookup_keys is None or row["lookup_key"] in params.lookup_keys)
    ]
    return page(PRICES, rows, params)


ENDPOINTS = [
    Endpoint("POST", PRODUCTS, ProductCreate, create_product),
    Endpoint("GET", PRODUCTS, ProductList, list_products),
    retrieve("product", PRODUCTS + "/{id}"),
    Endpoint("POST", PRODUCTS + "/{id}", ProductUpdate, update_product),
    Endpoint("POST", PRICES, PriceCreate, create_price),
    Endpoint("GET", PRICES, PriceList, list_prices),
    retrieve("price", PRICES + "/{id}"),
    Endpoint("POST", PRICES + "/{id}", PriceUpdate, update_price),
]
