"""What is paid on an invoice: one invoice payment with its payment intent for each sum of money.

An open invoice has one open payment for what remains; a part that is paid leaves another for the
rest.
"""

from typing import Literal

from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.endpoint import Call, Endpoint, retrieve
from tallystick.sandbox.stripe.events import emit
from tallystick.sandbox.stripe.lists import Paging, page
from tallystick.sandbox.stripe.wire import Obj

PATH = "/v1/invoice_payments"


class List(Paging):
    """What invoice payments can be listed by."""

    invoice: str | None = None
    status: Literal["open", "paid", "canceled"] | None = None


def of_invoice(account: Account, invoice_id: str) -> list[Obj]:
    """Return an invoice's payments, newest first."""
    rows = reversed(account.table("invoice_payment").values())
    return [row for row in rows if row["invoice"] == invoice_id]


def request(account: Account, invoice: Obj) -> None:
    """Open a payment for what remains."""
    intent = account.add(
        "payment_intent",
        "pi",
        {
            "object": "payment_intent",
            "amount": invoice["amount_remaining"],
            "amount_received": 0,
            "created": account.now(),
            "currency": invoice["currency"],
            "customer": invoice["customer"],
            "description": None,
            "last_payment_error": None,
            "latest_charge": None,
            "livemode": invoice["livemode"],
            "metadata": {},
            "next_action": None,
            "payment_method": None,
            "payment_method_types": ["card"],
            "status": "requires_payment_method",
        },
    )
    account.add(
        "invoice_payment",
        "inpay",
        {
            "object": "invoice_payment",
            "amount_paid": None,
            "amount_requested": invoice["amount_remaining"],
            "created": account.now(),
            "currency": invoice["currency"],
            "invoice": invoice["id"],
            "is_default": True,
            "livemode": invoice["livemode"],
            "payment": {"type": "payment_intent", "payment_intent": intent["id"]},
            "status": "open",
            "status_transitions": {"canceled_at": None, "paid_at": None},
        },
    )


def _open(account: Account, invoice: Obj) -> tuple[Obj, Obj]:
    payment = next(row for row in of_invoice(account, invoice["id"]) if row["status"] == "open")
    return payment, account.get("payment_intent", payment["payment"]["payment_intent"])


def intent_of(account: Account, invoice: Obj) -> Obj:
    """Return the intent of an open invoice's open payment."""
    return _open(account, invoice)[1]


def receive(account: Account, invoice: Obj, amount: int, method: str | None) -> None:
    """Let money come in on the open payment, all of it or a part."""
    payment, intent = _open(account, invoice)
    intent |= {
        "amount": amount,
        "amount_received": amount,
        "last_payment_error": None,
        "payment_method": method,
        "status": "succeeded",
    }
    payment |= {"amount_paid": amount, "status": "paid"}
    payment["status_transitions"] = {"canceled_at": None, "paid_at": account.now()}
    invoice["amount_paid"] += amount
    invoice["amount_remaining"] -= amount
    if invoice["amount_remaining"]:
        request(account, invoice)
    emit(account, "payment_intent.succeeded", intent)


def cancel(account: Account, invoice: Obj, why: str) -> None:
    """Cancel the open payment."""
    payment, intent = _open(account, invoice)
    now = account.now()
    intent |= {"status": "canceled", "canceled_at": now, "cancellation_reason": why}
    payment["status"] = "canceled"
    payment["status_transitions"] = {"canceled_at": now, "paid_at": None}


async def listed(call: Call, params: List) -> Obj:
    """List invoice payments, newest first."""
    rows = [
        row
        for row in reversed(call.account.table("invoice_payment").values())
        if params.invoice in (None, row["invoice"]) and params.status in (None, row["status"])
    ]
    return page(PATH, rows, params)


ENDPOINTS = [
    Endpoint("GET", PATH, List, listed),
    retrieve("invoice_payment", PATH + "/{id}"),
    retrieve("payment_intent", "/v1/payment_intents/{id}"),
]
