"""Reading Stripe's invoices, and putting together the ones that we make.

What an invoice says is always fetched again: events and answers grow old. Making is looking first,
by the marks that everything of ours carries in its metadata, and then creating under a key that is
a function of the ledger. The key covers a lost answer for a day, the look covers every day after it
(facts on Stripe, 'SDK').
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from stripe import Invoice, PaymentIntent, StripeClient

from activities import payment_words
from activities.stripe_catalog import CENTS_PER_UNIT
from activities.stripe_once import create_once
from tallystick.ledger.invoices import Seen
from tallystick.plans.periods import Period

MARK_CUSTOMER = "tallystick_customer_id"
MARK_STATEMENT = "tallystick_statement"
MARK_LINE = "tallystick_line"
MARK_PERIOD = "tallystick_period"
MARK_TOP_UP = "tallystick_top_up"
Marks = Mapping[str, str]


def instant(seconds: int) -> datetime:
    """Return Stripe's Unix seconds as an instant."""
    return datetime.fromtimestamp(seconds, UTC)


def instant_of(seconds: int | None) -> datetime | None:
    """Return the instant of something that may not have happened."""
    return None if seconds is None else instant(seconds)


# --- What an invoice says -------------------------------------------------------------------------
async def fetch(client: StripeClient, invoice_id: str, at: datetime) -> tuple[Invoice, Seen]:
    """Return an invoice as it is, for a look that began at `at`."""
    invoice = await client.v1.invoices.retrieve_async(invoice_id)
    return invoice, await seen(client, invoice, at)


async def seen(client: StripeClient, invoice: Invoice, at: datetime) -> Seen:
    """Return what an invoice says; asks Stripe why, where a payment was tried and failed."""
    waits = invoice.status in ("open", "uncollectible")
    failing = bool(waits and invoice.attempted and invoice.amount_remaining)
    moved = invoice.status_transitions
    final = invoice.status != "draft"
    return Seen(
        stripe_invoice_id=invoice.id,
        status=invoice.status or "draft",
        currency=invoice.currency,
        total_cents=invoice.total,
        tax_cents=sum(tax.amount for tax in invoice.total_taxes or ()),
        amount_due_cents=invoice.amount_due,
        amount_paid_cents=invoice.amount_paid,
        created_at=instant(invoice.created),
        finalized_at=instant_of(moved.finalized_at),
        due_at=instant_of(invoice.due_date) if final else None,
        paid_at=instant_of(moved.paid_at),
        failing=failing,
        failure=payment_words.of_intent(await open_payment(client, invoice.id))
        if failing
        else None,
        attempt_count=invoice.attempt_count,
        next_payment_attempt=instant_of(invoice.next_payment_attempt) if final else None,
        hosted_url=invoice.hosted_invoice_url,
        checked_at=at,
    )


async def open_payment(client: StripeClient, invoice_id: str) -> PaymentIntent | None:
    """Return the payment that is to bring what is still open on an invoice, if Stripe has one."""
    payments = await client.v1.invoice_payments.list_async(
        {"invoice": invoice_id, "status": "open", "limit": 1}
    )
    intent_id = payments.data[0].payment.payment_intent if payments.data else None
    if not isinstance(intent_id, str):
        return None
    return await client.v1.payment_intents.retrieve_async(intent_id)


def without_money(invoice: Invoice) -> str | None:
    """Say how an invoice was paid without money moving; None where money did, or none was due.

    `paid` alone does not mean that anything was collected (facts on Stripe, 'Subscriptions').
    """
    elsewhere = invoice.amount_paid_off_stripe or 0
    if invoice.status != "paid" or invoice.total <= 0 or invoice.amount_paid > elsewhere:
        return None
    if elsewhere > 0:
        return "it was marked as paid outside Stripe"
    if (invoice.ending_balance or 0) > 0:
        return "it is below the least that Stripe charges, and is owed with the next invoice"
    return "the customer's credit balance at Stripe paid it"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an invoice: Stripe's own for a price of a subscription, or an invoice item."""

    invoice_id: str
    kind: Literal["metered", "licensed", "item"]
    amount_cents: int
    quantity: Decimal | None
    item_id: str | None
    description: str | None
    marks: Marks
    """Of the invoice item, or of the subscription's."""


async def lines(client: StripeClient, invoice_id: str) -> list[Line]:
    """Return all lines of an invoice."""
    listed = await client.v1.invoices.line_items.list_async(invoice_id, {"limit": 100})
    found: list[Line] = []
    async for line in listed.auto_paging_iter():
        item = line.parent.invoice_item_details if line.parent else None
        unit = line.pricing.unit_amount_decimal if line.pricing else None
        metered = item is None and unit == CENTS_PER_UNIT
        found.append(
            Line(
                invoice_id=invoice_id,
                kind="item" if item is not None else "metered" if metered else "licensed",
                amount_cents=line.amount,
                quantity=line.quantity_decimal,
                item_id=item.invoice_item if item is not None else None,
                description=line.description,
                marks=marks_of(line.metadata),
            )
        )
    return found


# --- Making ---------------------------------------------------------------------------------------
def marks_of(metadata: Any) -> Marks:
    """Return an object's metadata as a mapping."""
    return metadata.to_dict() if metadata is not None else {}


async def marked(
    client: StripeClient, stripe_customer_id: str, marks: Marks, since: datetime
) -> Invoice | None:
    """Return the customer's invoice that carries these marks and is not void, if there is one.

    Args:
        client: to ask with.
        stripe_customer_id: whose.
        marks: all of them have to be there.
        since: it was made then at the earliest.
    """
    listed = await client.v1.invoices.list_async(
        {
            "customer": stripe_customer_id,
            "created": {"gte": int(since.timestamp())},
            "limit": 100,
        }
    )
    async for invoice in listed.auto_paging_iter():
        if marks.items() <= marks_of(invoice.metadata).items() and invoice.status != "void":
            return invoice
    return None


async def ensure_invoice(
    client: StripeClient,
    stripe_customer_id: str,
    *,
    marks: Marks,
    key: str,
    since: datetime,
    terms_days: int,
    description: str,
) -> Invoice:
    """Return the marked draft of an invoice of our own, made now if there is none.

    Nothing pending at the customer is swept onto it, and Stripe does not finalize it by itself.
    """
    found = await marked(client, stripe_customer_id, marks, since)
    if found is not None:
        return found
    params: Any = {
        "customer": stripe_customer_id,
        "auto_advance": False,
        "pending_invoice_items_behavior": "exclude",
        "description": description,
        "metadata": dict(marks),
        **collection_terms(terms_days),
    }
    return await create_once(client.v1.invoices.create_async, params, key)


def collection_terms(terms_days: int) -> dict[str, Any]:
    """Return how Stripe is to collect: at once from the card, or so many days later."""
    if terms_days == 0:
        return {"collection_method": "charge_automatically"}
    return {"collection_method": "send_invoice", "days_until_due": terms_days}


async def add_item(
    client: StripeClient,
    invoice: Invoice,
    *,
    marks: Marks,
    key: str,
    amount_cents: int,
    description: str,
    period: Period | None = None,
) -> str:
    """Put an item on a draft and return its id; the caller has looked that it is not there."""
    params: Any = {
        "customer": invoice.customer,
        "invoice": invoice.id,
        "amount": amount_cents,
        "currency": "usd",
        "description": description,
        "metadata": dict(marks),
    }
    if period is not None:
        start, end = (int(at.timestamp()) for at in period)
        params["period"] = {"start": start, "end": end}
    return (await create_once(client.v1.invoice_items.create_async, params, key)).id
