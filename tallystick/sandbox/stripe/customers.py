"""Customers: as much of them as billing needs."""

from tallystick.sandbox.stripe import balances, drafts, subscription_states
from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.endpoint import Call, Endpoint
from tallystick.sandbox.stripe.events import emit, updating
from tallystick.sandbox.stripe.lists import Paging, Span, page, within
from tallystick.sandbox.stripe.payment_methods import attach_to, of_customer
from tallystick.sandbox.stripe.wire import Metadata, Nested, Obj, Params, Refusal, with_metadata

PATH = "/v1/customers"


class InvoiceSettings(Nested):
    """How a customer pays unless an invoice or subscription says otherwise."""

    default_payment_method: str | None = None


class Update(Params):
    """What can change; an empty text unsets."""

    name: str | None = None
    email: str | None = None
    phone: str | None = None
    description: str | None = None
    balance: int | None = None
    metadata: Metadata | None = None
    invoice_settings: InvoiceSettings | None = None


class Create(Update):
    """What a new customer can be given."""

    payment_method: str | None = None


class List(Paging):
    """What customers can be listed by."""

    email: str | None = None
    created: Span | int | None = None


def _assign(account: Account, customer: Obj, params: Update) -> None:
    for name in ("name", "email", "phone", "description"):
        if (value := getattr(params, name)) is not None:
            customer[name] = value or None
    customer["metadata"] = with_metadata(customer["metadata"], params.metadata)
    if params.balance is not None:
        balances.move(account, customer, params.balance - customer["balance"], "adjustment")
    settings = params.invoice_settings
    if settings is not None and settings.default_payment_method is not None:
        chosen = settings.default_payment_method
        if chosen:
            param = "invoice_settings[default_payment_method]"
            of_customer(account, chosen, customer["id"], param=param)
        customer["invoice_settings"] = {
            **customer["invoice_settings"],
            "default_payment_method": chosen or None,
        }


async def create(call: Call, params: Create) -> Obj:
    """Make a customer."""
    account = call.account
    customer = account.add(
        "customer",
        "cus",
        {
            "object": "customer",
            "address": None,
            "balance": 0,
            "created": account.now(),
            "currency": None,
            "default_source": None,
            "delinquent": False,
            "description": None,
            "email": None,
            "invoice_settings": {
                "custom_fields": None,
                "default_payment_method": None,
                "footer": None,
                "rendering_options": None,
            },
            "livemode": call.livemode,
            "metadata": {},
            "name": None,
            "phone": None,
            "preferred_locales": [],
            "shipping": None,
            "tax_exempt": "none",
        },
    )
    try:
        method = (
            attach_to(account, params.payment_method, customer) if params.payment_method else None
        )
        _assign(account, customer, _with_own_method(params, method))
    except Refusal:
        del account.table("customer")[customer["id"]]
        raise
    emit(account, "customer.created", customer)
    return customer


def _with_own_method(params: Create, method: Obj | None) -> Create:
    """Let the default name the card by the test id it was given under."""
    settings = params.invoice_settings
    if (
        method is None
        or settings is None
        or settings.default_payment_method != params.payment_method
    ):
        return params
    own = InvoiceSettings(default_payment_method=method["id"])
    return params.model_copy(update={"invoice_settings": own})


async def update(call: Call, params: Update) -> Obj:
    """Change a customer. A new card does not by itself pay what is open."""
    customer = call.account.get("customer", call.ids["id"])
    with updating(call.account, "customer.updated", customer):
        _assign(call.account, customer, params)
    return customer


async def delete(call: Call, _: Params) -> Obj:
    """Delete a customer: nothing is invoiced or charged any more, and open usage is dropped."""
    account = call.account
    customer = account.get("customer", call.ids["id"])
    for subscription in list(account.table("subscription").values()):
        if subscription["customer"] == customer["id"]:
            subscription_states.end(account, subscription)
    for invoice in list(account.table("invoice").values()):
        if invoice["customer"] == customer["id"]:
            if invoice["status"] == "draft":
                drafts.discard(account, invoice)
            elif invoice["status"] == "open":
                subscription_states.stop_collecting(account, invoice)
    account.table("customer").pop(customer["id"])
    gone: Obj = {"id": customer["id"], "object": "customer", "deleted": True}
    account.table("deleted customer")[customer["id"]] = gone
    emit(account, "customer.deleted", customer)
    return gone


async def show(call: Call, _: Params) -> Obj:
    """Show a customer, or that it was deleted."""
    gone = call.account.table("deleted customer").get(call.ids["id"])
    return gone or call.account.get("customer", call.ids["id"])


async def listed(call: Call, params: List) -> Obj:
    """List customers, newest first."""
    rows = [
        row
        for row in reversed(call.account.table("customer").values())
        if params.email in (None, row["email"]) and within(row["created"], params.created)
    ]
    return page(PATH, rows, params)


ENDPOINTS = [
    Endpoint("POST", PATH, Create, create),
    Endpoint("GET", PATH, List, listed),
    Endpoint("GET", PATH + "/{id}", Params, show),
    Endpoint("POST", PATH + "/{id}", Update, update),
    Endpoint("DELETE", PATH + "/{id}", Params, delete),
]
