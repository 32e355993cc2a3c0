"""Drafts: how an invoice begins, how long it may be changed, and how it becomes final.

A draft finalizes an hour after the last webhook of its `invoice.created` was answered; while one
fails that is put off, by 72 hours at most. An update may set another time, or none (facts on
Stripe, 'Subscriptions, invoices, dunning').
"""

from typing import Any, Literal

from tallystick.sandbox.stripe import invoice_payments, payments, subscription_states
from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.balances import move
from tallystick.sandbox.stripe.events import emit, updating
from tallystick.sandbox.stripe.lines import price
from tallystick.sandbox.stripe.wire import Obj, Refusal

HOUR, DAY = 3600, 86400
LONGEST_WAIT = 72 * HOUR

_SMALLEST_CHARGE = {"usd": 50, "eur": 50, "gbp": 30}


def open_draft(
    account: Account,
    customer: Obj,
    *,
    reason: str,
    currency: str,
    collection_method: str,
    auto_advance: bool,
    period: tuple[int, int],
    days_until_due: int | None = None,
    subscription: Obj | None = None,
    **fields: Any,
) -> Obj:
    """Make a draft without lines; nobody hears of it before `announce`."""
    now = account.now()
    if customer["currency"] is None:
        customer["currency"] = currency
    parent = None
    if subscription is not None:
        parent = {
            "type": "subscription_details",
            "quote_details": None,
            "subscription_details": {
                "metadata": dict(subscription["metadata"]),
                "subscription": subscription["id"],
            },
        }
    invoice = account.add(
        "invoice",
        "in",
        {
            "object": "invoice",
            "account_country": "US",
            "account_name": "Sandbox",
            "amount_overpaid": 0,
            "amount_paid": 0,
            "amount_paid_off_stripe": 0,
            "amount_shipping": 0,
            "attempt_count": 0,
            "attempted": False,
            "auto_advance": auto_advance,
            "automatic_tax": {"enabled": False, "liability": None, "status": None},
            "automatically_finalizes_at": None,
            "billing_reason": reason,
            "collection_method": collection_method,
            "created": now,
            "currency": currency,
            "custom_fields": None,
            "customer": customer["id"],
            "customer_email": customer["email"],
            "customer_name": customer["name"],
            "customer_tax_exempt": customer["tax_exempt"],
            "default_payment_method": None,
            "default_tax_rates": [],
            "description": None,
            "discounts": [],
            "due_date": None if days_until_due is None else now + days_until_due * DAY,
            "effective_at": None,
            "ending_balance": None,
            "footer": None,
            "hosted_invoice_url": None,
            "invoice_pdf": None,
            "issuer": {"type": "self"},
            "last_finalization_error": None,
            "livemode": customer["livemode"],
            "metadata": {},
            "next_payment_attempt": None,
            "number": None,
            "parent": parent,
            "payment_settings": {
                "default_mandate": None,
                "payment_method_options": None,
                "payment_method_types": None,
            },
            "period_end": period[1],
            "period_start": period[0],
            "post_payment_credit_notes_amount": 0,
            "pre_payment_credit_notes_amount": 0,
            "receipt_number": None,
            "status": "draft",
            "status_transitions": dict.fromkeys(
                ("finalized_at", "marked_uncollectible_at", "paid_at", "voided_at")
            ),
            "webhooks_delivered_at": None,
            "_lines": [],
            "_days_until_due": days_until_due,
            **fields,
        },
    )
    price(account, invoice)
    return invoice


def announce(account: Account, invoice: Obj) -> None:
    """Tell of a new draft; from now on its time runs."""
    if invoice["auto_advance"]:
        _finalize_at(account, invoice, account.now() + HOUR)
    if emit(account, "invoice.created", invoice)["pending_webhooks"] == 0:
        invoice["webhooks_delivered_at"] = account.now()


def delivered(account: Account, invoice_id: str) -> None:
    """Note that every webhook of the draft's creation was answered: an hour is left."""
    invoice = account.table("invoice").get(invoice_id)
    if invoice is None or invoice["webhooks_delivered_at"] is not None:
        return
    invoice["webhooks_delivered_at"] = account.now()
    if invoice["automatically_finalizes_at"] is not None and "_own_time" not in invoice:
        _finalize_at(account, invoice, account.now() + HOUR)


def schedule(account: Account, invoice: Obj, at: int | None) -> None:
    """Set when a draft finalizes, by its owner's wish; None leaves it a draft."""
    if at is not None and at < account.now():
        raise Refusal(
            400, "automatically_finalizes_at must be in the future.",
            param="automatically_finalizes_at",
        )  # fmt: skip
    invoice["_own_time"] = True
    _finalize_at(account, invoice, at)


def _finalize_at(account: Account, invoice: Obj, at: int | None) -> None:
    charged = invoice["collection_method"] == "charge_automatically"
    invoice["automatically_finalizes_at"] = at
    invoice["next_payment_attempt"] = at if charged else None
    if at is not None:
        account.clock.at(at, lambda: _fall_due(account, invoice, at))


def _fall_due(account: Account, invoice: Obj, at: int) -> None:
    if invoice["status"] != "draft" or invoice["automatically_finalizes_at"] != at:
        return
    waits = invoice["webhooks_delivered_at"] is None and "_own_time" not in invoice
    if waits and at < invoice["created"] + LONGEST_WAIT:
        _finalize_at(account, invoice, at + HOUR)
    else:
        finalize(account, invoice)


def discard(account: Account, invoice: Obj) -> None:
    """Let a draft be gone, whatever was due to happen to it."""
    del account.table("invoice")[invoice["id"]]
    _finalize_at(account, invoice, None)
    emit(account, "invoice.deleted", invoice)


def finalize(
    account: Account, invoice: Obj, *, collect: Literal["at once", "soon", "not yet"] = "at once"
) -> None:
    """Fix a draft, settle it with the customer's balance, and begin to collect what is due.

    An invoice that advances is charged `at once`, or `soon`: after this call has been answered,
    so that a caller who then pays meets an invoice that is paid already (twentyhq/twenty#21097).
    `not yet` leaves the first charge to the caller.

    Raises:
        Refusal: 400 for what is no draft.
    """
    if invoice["status"] != "draft":
        raise Refusal(
            400, "This invoice is already finalized, you can't re-finalize a non-draft invoice."
        )
    price(account, invoice)
    customer = account.get("customer", invoice["customer"])
    owed = invoice["total"] + customer["balance"]
    too_small = 0 < owed < _SMALLEST_CHARGE.get(invoice["currency"], 50)
    due = 0 if too_small else max(0, owed)
    now = account.now()
    customer["_invoices"] = customer.get("_invoices", 0) + 1
    invoice |= {
        "amount_due": due,
        "amount_remaining": due,
        "automatically_finalizes_at": None,
        "effective_at": now,
        "ending_balance": owed - due,
        "hosted_invoice_url": f"https://invoice.stripe.com/i/{invoice['id']}",
        "invoice_pdf": f"https://pay.stripe.com/invoice/{invoice['id']}/pdf",
        "next_payment_attempt": None,
        "number": f"{customer['id'][-8:].upper()}-{customer['_invoices']:04}",
        "status": "open",
        "status_transitions": {**invoice["status_transitions"], "finalized_at": now},
    }
    if invoice["_days_until_due"] is not None:
        invoice["due_date"] = now + invoice["_days_until_due"] * DAY
    with updating(account, "customer.updated", customer):
        change = invoice["ending_balance"] - invoice["starting_balance"]
        why = "invoice_too_small" if too_small else "applied_to_invoice"
        move(account, customer, change, why, invoice=invoice["id"])
    emit(account, "invoice.finalized", invoice)
    if due == 0:
        payments.nothing_due(account, invoice)
        return
    invoice_payments.request(account, invoice)
    if invoice["collection_method"] == "send_invoice":
        emit(account, "invoice.sent", invoice)
        account.clock.at(invoice["due_date"], lambda: _overdue(account, invoice))
    elif invoice["auto_advance"] and collect == "soon":
        payments.set_next(account, invoice, now)
    elif invoice["auto_advance"] and collect == "at once":
        payments.attempt(account, invoice, payments.method_for(account, invoice), scheduled=True)


def _overdue(account: Account, invoice: Obj) -> None:
    if invoice["status"] == "open":
        emit(account, "invoice.overdue", invoice)
        subscription_states.follow(account, invoice)
