"""How a subscription's status follows its latest finalized invoice, and how it ends."""

from typing import Any

from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.events import emit, updating
from tallystick.sandbox.stripe.wire import Obj

ENDED = ("canceled", "incomplete_expired")


def invoices_of(account: Account, subscription_id: str) -> list[Obj]:
    """Return a subscription's invoices, oldest first."""
    invoices = account.table("invoice").values()
    return [each for each in invoices if subscription_of(each) == subscription_id]


def subscription_of(obj: Obj) -> str | None:
    """Return the id of the subscription that an invoice or item is for, if it is for one."""
    parent = obj["parent"]
    return parent["subscription_details"]["subscription"] if parent else None


def change(account: Account, subscription: Obj, **fields: Any) -> None:
    """Set fields of a subscription, with an event where something changes."""
    with updating(account, "customer.subscription.updated", subscription):
        subscription |= fields


def follow(account: Account, invoice: Obj) -> None:
    """Let the subscription follow an invoice whose payment moved.

    Only the latest finalized invoice counts: paying an older one changes nothing.
    """
    subscription = account.table("subscription").get(subscription_of(invoice) or "")
    if subscription is None or subscription["status"] in ENDED:
        return
    finalized = [
        each
        for each in invoices_of(account, subscription["id"])
        if each["status_transitions"]["finalized_at"] is not None
    ]
    if not finalized or finalized[-1] is not invoice:
        return
    if invoice["status"] != "open":
        change(account, subscription, status="active")
    elif subscription["status"] == "active" and not _may_wait(account, invoice):
        change(account, subscription, status="past_due")


def _may_wait(account: Account, invoice: Obj) -> bool:
    """Say whether an open invoice is not late yet."""
    if invoice["collection_method"] == "send_invoice":
        return account.clock() < invoice["due_date"]
    return not invoice["attempted"]


def stop_collecting(account: Account, invoice: Obj) -> None:
    """Try an open invoice no more, unless somebody asks for it."""
    with updating(account, "invoice.updated", invoice):
        invoice |= {"auto_advance": False, "next_payment_attempt": None}


def end(account: Account, subscription: Obj, *, status: str = "canceled") -> None:
    """End a subscription now.

    Automatic collection of its open invoices stops: nothing is charged after a cancellation unless
    somebody asks for it.
    """
    if subscription["status"] in ENDED:
        return
    now = account.now()
    subscription |= {"status": status, "ended_at": now}
    subscription["canceled_at"] = subscription["canceled_at"] or now
    for invoice in invoices_of(account, subscription["id"]):
        if invoice["status"] == "open":
            stop_collecting(account, invoice)
    emit(
        account,
        "customer.subscription.updated"
        if status == "incomplete_expired"
        else "customer.subscription.deleted",
        subscription,
    )
