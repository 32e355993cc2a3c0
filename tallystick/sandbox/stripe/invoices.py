"""Invoices through the API: what a caller may do with one at each stage of its life."""

from typing import Annotated, Literal

from pydantic import Field

from tallystick.sandbox.stripe import drafts, invoice_payments, payments, subscription_states
from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.balances import move
from tallystick.sandbox.stripe.endpoint import Call, Endpoint, Handler
from tallystick.sandbox.stripe.events import emit, updating
from tallystick.sandbox.stripe.invoice_items import pending_of, release
from tallystick.sandbox.stripe.lines import MOST_ITEMS, add_item, price
from tallystick.sandbox.stripe.lists import Paging, Span, page, within
from tallystick.sandbox.stripe.payment_methods import of_customer
from tallystick.sandbox.stripe.wire import Metadata, Obj, Params, Refusal, with_metadata

PATH = "/v1/invoices"

Days = Annotated[int, Field(ge=0)]
CollectionMethod = Literal["charge_automatically", "send_invoice"]


class Create(Params):
    """What a new invoice can be given; `subscription` has only that one's pending items on it."""

    customer: str | None = None
    subscription: str | None = None
    auto_advance: bool = False
    automatically_finalizes_at: int | None = None
    collection_method: CollectionMethod = "charge_automatically"
    currency: str | None = None
    days_until_due: Days | None = None
    default_payment_method: str | None = None
    description: str | None = None
    due_date: int | None = None
    footer: str | None = None
    metadata: Metadata | None = None
    pending_invoice_items_behavior: Literal["include", "exclude"] = "exclude"


class Update(Params):
    """What can change; once an invoice is final, only metadata and automatic collection."""

    auto_advance: bool | None = None
    automatically_finalizes_at: int | None = None
    collection_method: CollectionMethod | None = None
    days_until_due: Days | None = None
    default_payment_method: str | None = None
    description: str | None = None
    due_date: int | None = None
    footer: str | None = None
    metadata: Metadata | None = None


class Finalize(Params):
    """Whether collection goes on by itself."""

    auto_advance: bool | None = None


class Pay(Params):
    """How to collect now."""

    off_session: bool = True
    paid_out_of_band: bool = False
    payment_method: str | None = None


class List(Paging):
    """What invoices can be listed by."""

    collection_method: CollectionMethod | None = None
    created: Span | int | None = None
    customer: str | None = None
    due_date: Span | int | None = None
    status: Literal["draft", "open", "paid", "uncollectible", "void"] | None = None
    subscription: str | None = None


def _terms(method: str, days: int | None, due: int | None) -> None:
    """Refuse terms that do not fit the collection method."""
    sent = method == "send_invoice"
    if sent and days is None and due is None:
        raise Refusal(
            400,
            "If invoice is set to `send_invoice`, you must specify due_date or days_until_due.",
            param="days_until_due",
        )
    if not sent and (days is not None or due is not None):
        raise Refusal(
            400,
            "Only invoices with collection_method `send_invoice` have a due date.",
            param="days_until_due" if days is not None else "due_date",
        )


def _fresh(account: Account, invoice_id: str) -> Obj:
    """Return an invoice, a draft with its metered lines as they are now."""
    invoice = account.get("invoice", invoice_id)
    if invoice["status"] == "draft":
        price(account, invoice)
    return invoice


async def create(call: Call, params: Create) -> Obj:
    """Make a draft, with the pending invoice items where asked."""
    account = call.account
    subscription = None
    if params.subscription is not None:
        subscription = account.get(
            "subscription", params.subscription, param="subscription", status=400
        )
    customer_id = params.customer or (subscription or {}).get("customer")
    if customer_id is None:
        raise Refusal(
            400, "Missing required param: customer.", code="parameter_missing", param="customer"
        )
    customer = account.get("customer", customer_id, param="customer", status=400)
    _terms(params.collection_method, params.days_until_due, params.due_date)
    if params.default_payment_method:
        of_customer(
            account, params.default_payment_method, customer_id, param="default_payment_method"
        )
    items: list[Obj] = []
    if params.pending_invoice_items_behavior == "include" or subscription is not None:
        items = pending_of(account, customer_id, params.subscription, exactly=True)[:MOST_ITEMS]
    now = account.now()
    invoice = drafts.open_draft(
        account,
        customer,
        reason="manual",
        currency=(params.currency or customer["currency"] or "usd").lower(),
        collection_method=params.collection_method,
        auto_advance=params.auto_advance,
        period=(now, now),
        days_until_due=params.days_until_due,
        subscription=subscription,
    )
    if params.due_date is not None:
        invoice["due_date"] = params.due_date
    _assign_texts(invoice, params)
    for item in items:
        add_item(account, invoice, item)
    drafts.announce(account, invoice)
    if params.automatically_finalizes_at is not None:
        drafts.schedule(account, invoice, params.automatically_finalizes_at)
    return invoice


def _assign_texts(invoice: Obj, params: Create | Update) -> None:
    for name in ("default_payment_method", "description", "footer"):
        if (value := getattr(params, name)) is not None:
            invoice[name] = value or None
    invoice["metadata"] = with_metadata(invoice["metadata"], params.metadata)


async def update(call: Call, params: Update) -> Obj:
    """Change an invoice."""
    account = call.account
    invoice = _fresh(account, call.ids["id"])
    if invoice["status"] != "draft":
        _refuse_edits(params)
    with updating(account, "invoice.updated", invoice):
        _assign_texts(invoice, params)
        if invoice["status"] == "draft":
            _assign_terms(invoice, params)
            _assign_timing(account, invoice, params)
        elif params.auto_advance is not None and invoice["status"] == "open":
            invoice["auto_advance"] = params.auto_advance
            charged = invoice["collection_method"] == "charge_automatically"
            resumed = params.auto_advance and charged
            payments.set_next(account, invoice, account.now() + drafts.HOUR if resumed else None)
    return invoice


def _refuse_edits(params: Update) -> None:
    changed = params.model_fields_set - {"metadata", "auto_advance", "expand"}
    if params.model_fields_set & {"default_payment_method"}:
        changed -= {"default_payment_method"}
    if changed:
        raise Refusal(
            400,
            "Finalized invoices can't be updated in this way.",
            code="invoice_not_editable",
            param=sorted(changed)[0],
        )


def _assign_terms(invoice: Obj, params: Update) -> None:
    method = params.collection_method or invoice["collection_method"]
    days, due = params.days_until_due, params.due_date
    if days is None and due is None and method == "send_invoice":
        days, due = invoice["_days_until_due"], invoice["due_date"]
    _terms(method, days, due)
    invoice |= {"collection_method": method, "_days_until_due": days, "due_date": due}
    if days is not None:
        invoice["due_date"] = invoice["created"] + days * drafts.DAY


def _assign_timing(account: Account, invoice: Obj, params: Update) -> None:
    if params.auto_advance is False and params.automatically_finalizes_at is not None:
        raise Refusal(
            400,
            "Which of the two would win is not documented; here neither does.",
            param="automatically_finalizes_at",
        )
    if params.auto_advance is not None:
        invoice["auto_advance"] = params.auto_advance
    if params.automatically_finalizes_at is not None:
        drafts.schedule(account, invoice, params.automatically_finalizes_at)
    elif params.auto_advance is False:
        drafts.schedule(account, invoice, None)
    elif params.auto_advance and invoice["automatically_finalizes_at"] is None:
        drafts.schedule(account, invoice, account.now() + drafts.HOUR)


async def show(call: Call, _: Params) -> Obj:
    """Show an invoice."""
    return _fresh(call.account, call.ids["id"])


async def listed(call: Call, params: List) -> Obj:
    """List invoices, newest first."""
    account = call.account
    rows = [
        row
        for row in reversed(account.table("invoice").values())
        if params.customer in (None, row["customer"])
        and params.status in (None, row["status"])
        and params.collection_method in (None, row["collection_method"])
        and params.subscription in (None, subscription_states.subscription_of(row))
        and within(row["created"], params.created)
        and (params.due_date is None or within(row["due_date"] or 0, params.due_date))
    ]
    found = page(PATH, rows, params)
    for row in found["data"]:
        _fresh(account, row["id"])
    return found


async def lines(call: Call, params: Paging) -> Obj:
    """List an invoice's lines."""
    return page(call.path, _fresh(call.account, call.ids["id"])["_lines"], params)


async def finalize(call: Call, params: Finalize) -> Obj:
    """Finalize a draft now; what is due is charged after the answer."""
    invoice = _fresh(call.account, call.ids["id"])
    if params.auto_advance is not None:
        invoice["auto_advance"] = params.auto_advance
    drafts.finalize(call.account, invoice, collect="soon")
    return invoice


async def pay(call: Call, params: Pay) -> Obj:
    """Collect now, outside the schedule; a draft is finalized first."""
    account = call.account
    invoice = _fresh(account, call.ids["id"])
    if invoice["status"] == "draft":
        drafts.finalize(account, invoice, collect="not yet")
        if not invoice["amount_due"]:
            return invoice
    _expect(invoice, "open", "uncollectible", doing="paid")
    if params.paid_out_of_band:
        payments.out_of_band(account, invoice)
        return invoice
    method = payments.method_for(account, invoice, params.payment_method)
    if method is None:
        raise payments.no_method()
    refusal = payments.attempt(account, invoice, method, scheduled=False)
    if refusal is not None:
        raise refusal
    return invoice


def _expect(invoice: Obj, *states: str, doing: str) -> None:
    """Refuse what an invoice in this state cannot have done to it."""
    status = invoice["status"]
    if status in states:
        return
    if status == "paid":
        raise Refusal(400, "Invoice is already paid", replayed=True)
    raise Refusal(
        400, f"You can only {doing} an invoice that is {' or '.join(states)}; this is {status}.",
        replayed=True,
    )  # fmt: skip


async def void(call: Call, _: Params) -> Obj:
    """Void a final invoice that is not paid; what it took from the balance goes back."""
    account = call.account
    invoice = account.get("invoice", call.ids["id"])
    _expect(invoice, "open", "uncollectible", doing="void")
    void_invoice(account, invoice)
    return invoice


def void_invoice(account: Account, invoice: Obj) -> None:
    """Void it."""
    invoice_payments.cancel(account, invoice, "void_invoice")
    _close(invoice, "void", "voided_at", account.now())
    customer = account.table("customer").get(invoice["customer"])
    if customer is not None:
        with updating(account, "customer.updated", customer):
            taken = invoice["starting_balance"] - invoice["ending_balance"]
            move(account, customer, taken, "unapplied_from_invoice", invoice=invoice["id"])
    emit(account, "invoice.voided", invoice)
    subscription_states.follow(account, invoice)


def _close(invoice: Obj, status: str, when: str, now: int) -> None:
    invoice |= {"status": status, "auto_advance": False, "next_payment_attempt": None}
    invoice["status_transitions"] = {**invoice["status_transitions"], when: now}


async def mark_uncollectible(call: Call, _: Params) -> Obj:
    """Write an open invoice off; it can still be paid."""
    account = call.account
    invoice = account.get("invoice", call.ids["id"])
    _expect(invoice, "open", doing="mark as uncollectible")
    _close(invoice, "uncollectible", "marked_uncollectible_at", account.now())
    emit(account, "invoice.marked_uncollectible", invoice)
    subscription_states.follow(account, invoice)
    return invoice


async def delete(call: Call, _: Params) -> Obj:
    """Delete a one-off draft; its invoice items are pending again."""
    account = call.account
    invoice = account.get("invoice", call.ids["id"])
    if invoice["status"] != "draft" or invoice["parent"] is not None:
        raise Refusal(400, "You can only delete one-off draft invoices.")
    release(account, invoice)
    drafts.discard(account, invoice)
    return {"id": invoice["id"], "object": "invoice", "deleted": True}


def _action(name: str, params: type[Params], handle: Handler) -> Endpoint:
    return Endpoint("POST", f"{PATH}/{{id}}/{name}", params, handle)


ENDPOINTS = [
    Endpoint("POST", PATH, Create, create),
    Endpoint("GET", PATH, List, listed),
    Endpoint("GET", PATH + "/{id}", Params, show),
    Endpoint("POST", PATH + "/{id}", Update, update),
    Endpoint("DELETE", PATH + "/{id}", Params, delete),
    Endpoint("GET", PATH + "/{id}/lines", Paging, lines),
    _action("finalize", Finalize, finalize),
    _action("pay", Pay, pay),
    _action("void", Params, void),
    _action("mark_uncollectible", Params, mark_uncollectible),
]
