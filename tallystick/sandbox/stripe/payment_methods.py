"""Payment methods: Stripe's test cards, each of which charges or declines as its name says.

Attaching one by its test id (`pm_card_visa`) makes a card of the customer's own. Cards that decline
can be attached here, as if they had gone bad since; the real API refuses some of them at once.
"""

from datetime import UTC, datetime
from typing import Literal

from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.declines import TEST_CARDS
from tallystick.sandbox.stripe.endpoint import Call, Endpoint, retrieve
from tallystick.sandbox.stripe.events import emit, updating
from tallystick.sandbox.stripe.lists import Paging, page
from tallystick.sandbox.stripe.wire import Nested, Obj, Params, Refusal

PATH = "/v1/payment_methods"


class Token(Nested):
    """A card by its test token, such as `tok_visa`."""

    token: str


class Create(Params):
    """A card that belongs to nobody yet."""

    type: Literal["card"]
    card: Token


class Attach(Params):
    """Whose it shall be."""

    customer: str


class List(Paging):
    """What payment methods can be listed by."""

    customer: str | None = None
    type: Literal["card"] | None = None


class OfCustomer(Paging):
    """What one customer's payment methods can be listed by."""

    type: Literal["card"] | None = None


def _make(account: Account, name: str, *, livemode: bool) -> Obj:
    """Make a card after a test card."""
    try:
        decline = TEST_CARDS[name]
    except KeyError:
        raise Refusal(
            400, f"No such test card: '{name}'", code="resource_missing", param="payment_method"
        ) from None
    year = datetime.fromtimestamp(account.clock(), UTC).year
    brand = name if name in ("mastercard", "amex") else "visa"
    return account.add(
        "payment_method",
        "pm",
        {
            "object": "payment_method",
            "allow_redisplay": "unspecified",
            "billing_details": {
                "address": dict.fromkeys(
                    ("city", "country", "line1", "line2", "postal_code", "state")
                ),
                "email": None,
                "name": None,
                "phone": None,
                "tax_id": None,
            },
            "card": {
                "brand": brand,
                "checks": None,
                "country": "US",
                "display_brand": brand,
                "exp_month": 12,
                "exp_year": year - 1 if decline == "expired_card" else year + 3,
                "fingerprint": name,
                "funding": "credit",
                "generated_from": None,
                "last4": "4242",
                "networks": None,
                "three_d_secure_usage": None,
                "wallet": None,
            },
            "created": account.now(),
            "customer": None,
            "livemode": livemode,
            "metadata": {},
            "type": "card",
            "_decline": decline,
        },
    )


def attach_to(account: Account, method_id: str, customer: Obj) -> Obj:
    """Give a customer a card, a new one where a test id is given."""
    if method_id.startswith("pm_card_"):
        name = method_id.removeprefix("pm_card_")
        method = _make(account, name, livemode=customer["livemode"])
    else:
        method = account.get("payment_method", method_id, param="payment_method")
    if method["customer"] not in (None, customer["id"]):
        raise Refusal(400, "The payment method is already attached to another customer.")
    method["customer"] = customer["id"]
    emit(account, "payment_method.attached", method)
    return method


def of_customer(account: Account, method_id: str, customer_id: str, *, param: str) -> Obj:
    """Return a card that the customer has.

    Raises:
        Refusal: 400 for one that is not attached to the customer.
    """
    method = account.table("payment_method").get(method_id)
    if method is None or method["customer"] != customer_id:
        raise Refusal(
            400,
            f"The customer does not have a payment method with the ID {method_id}. "
            "The payment method must be attached to the customer.",
            code="resource_missing",
            param=param,
        )
    return method


async def create(call: Call, params: Create) -> Obj:
    """Make a card from a test token."""
    return _make(call.account, params.card.token.removeprefix("tok_"), livemode=call.livemode)


async def attach(call: Call, params: Attach) -> Obj:
    """Attach a card."""
    customer = call.account.get("customer", params.customer, param="customer", status=400)
    return attach_to(call.account, call.ids["id"], customer)


async def detach(call: Call, _: Params) -> Obj:
    """Take a card from its customer, as default too."""
    account = call.account
    method = account.get("payment_method", call.ids["id"])
    if method["customer"] is None:
        raise Refusal(400, "The payment method is not attached to a customer.")
    customer = account.get("customer", method["customer"])
    with updating(account, "customer.updated", customer):
        if customer["invoice_settings"]["default_payment_method"] == method["id"]:
            customer["invoice_settings"]["default_payment_method"] = None
    method["customer"] = None
    emit(account, "payment_method.detached", method)
    return method


def _page_of(call: Call, customer: str | None, params: Paging) -> Obj:
    rows = reversed(call.account.table("payment_method").values())
    # Without a customer the real API lists what belongs to none; those here do not outlive a call.
    return page(call.path, [row for row in rows if row["customer"] == customer], params)


async def listed(call: Call, params: List) -> Obj:
    """List a customer's cards, newest first."""
    return _page_of(call, params.customer, params)


async def listed_of_customer(call: Call, params: OfCustomer) -> Obj:
    """List the cards of the customer in the path, newest first."""
    call.account.get("customer", call.ids["id"])
    return _page_of(call, call.ids["id"], params)


ENDPOINTS = [
    Endpoint("POST", PATH, Create, create),
    Endpoint("GET", PATH, List, listed),
    Endpoint("POST", PATH + "/{id}/attach", Attach, attach),
    Endpoint("POST", PATH + "/{id}/detach", Params, detach),
    Endpoint("GET", "/v1/customers/{id}/payment_methods", OfCustomer, listed_of_customer),
    retrieve("payment_method", PATH + "/{id}"),
]
