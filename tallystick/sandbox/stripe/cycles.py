"""What a subscription's clock brings: the first invoice, one at each boundary, and the last.

A cycle's draft has the metered lines of the period that ended, the licensed ones of the one that
begins, and the invoice items that were pending. A flexible subscription with metered prices alone
has no first invoice; the first invoice of any other finalizes at once.
"""

from fractions import Fraction

from tallystick.sandbox.stripe import drafts, subscription_states
from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.events import emit
from tallystick.sandbox.stripe.invoice_items import pending_of
from tallystick.sandbox.stripe.invoices import void_invoice
from tallystick.sandbox.stripe.lines import MOST_ITEMS, add_item, add_licensed, add_metered
from tallystick.sandbox.stripe.periods import around, boundary
from tallystick.sandbox.stripe.wire import Obj

INCOMPLETE_SECONDS = 23 * 3600


def items_of(subscription: Obj) -> list[Obj]:
    """Return a subscription's items."""
    return subscription["items"]["data"]


def period_of(subscription: Obj) -> tuple[int, int]:
    """Return the current period: start, and end exclusive."""
    first = items_of(subscription)[0]
    return first["current_period_start"], first["current_period_end"]


def metered(item: Obj) -> bool:
    """Say whether an item is paid after use."""
    return item["price"]["recurring"]["usage_type"] == "metered"


def _draft(
    account: Account, subscription: Obj, reason: str, period: tuple[int, int], *, advance: bool
) -> Obj:
    return drafts.open_draft(
        account,
        account.get("customer", subscription["customer"]),
        reason=reason,
        currency=subscription["currency"],
        collection_method=subscription["collection_method"],
        auto_advance=advance,
        period=period,
        days_until_due=subscription["days_until_due"],
        subscription=subscription,
    )


def _sweep(account: Account, subscription: Obj, invoice: Obj) -> None:
    """Put what is pending on the draft, as much as it can hold."""
    pending = pending_of(account, subscription["customer"], subscription["id"])
    for item in pending[:MOST_ITEMS]:
        add_item(account, invoice, item)


def start(account: Account, subscription: Obj, *, stub: Fraction, attempt: bool) -> None:
    """Announce a new subscription, invoice its first period in advance, and set the clock.

    Args:
        account: where.
        subscription: new, with its first period set.
        stub: how much of a whole period the first one is invoiced for.
        attempt: whether the first payment is tried at once.
    """
    begin, end = period_of(subscription)
    licensed = [item for item in items_of(subscription) if not metered(item)]
    invoice = None
    if licensed and stub:
        invoice = _draft(account, subscription, "subscription_create", (begin, begin), advance=True)
        _sweep(account, subscription, invoice)
        for item in licensed:
            add_licensed(account, invoice, item, (begin, end), stub)
        subscription["latest_invoice"] = invoice["id"]
        if subscription["collection_method"] == "charge_automatically":
            subscription["status"] = "incomplete"
    emit(account, "customer.subscription.created", subscription)
    if invoice is not None:
        drafts.announce(account, invoice)
        drafts.finalize(account, invoice, collect="at once" if attempt else "not yet")
        expires = subscription["created"] + INCOMPLETE_SECONDS
        account.clock.at(expires, lambda: _expire(account, subscription, invoice))
    account.clock.at(end, lambda: _turn(account, subscription, end))


def _expire(account: Account, subscription: Obj, invoice: Obj) -> None:
    if subscription["status"] == "incomplete":
        subscription_states.end(account, subscription, status="incomplete_expired")
        if invoice["status"] == "open":
            void_invoice(account, invoice)


def _turn(account: Account, subscription: Obj, due: int) -> None:
    """Close the period that ends now and begin the next."""
    begin, end = period_of(subscription)
    if subscription["status"] in subscription_states.ENDED or end != due:
        return
    if subscription["cancel_at_period_end"] or subscription["cancel_at"] == end:
        finish(account, subscription)
        return
    anchor, day = subscription["billing_cycle_anchor"], subscription["_day"]
    recurring = items_of(subscription)[0]["price"]["recurring"]
    _, following = around(anchor, recurring, end, day)
    billed = subscription["status"] != "unpaid"
    invoice = _draft(account, subscription, "subscription_cycle", (begin, end), advance=billed)
    _sweep(account, subscription, invoice)
    for item in items_of(subscription):
        if metered(item):
            add_metered(account, invoice, item, (begin, end))
    for item in items_of(subscription):
        if not metered(item):
            add_licensed(account, invoice, item, (end, following))
    items = [
        {**item, "current_period_start": end, "current_period_end": following}
        for item in items_of(subscription)
    ]
    subscription_states.change(
        account,
        subscription,
        items={**subscription["items"], "data": items},
        latest_invoice=invoice["id"],
    )
    drafts.announce(account, invoice)
    account.clock.at(following, lambda: _turn(account, subscription, following))


def cancel_at(account: Account, subscription: Obj, instant: int) -> None:
    """Have a subscription end at an instant, unless its wish has changed by then."""

    def fall_due() -> None:
        if subscription["cancel_at"] == instant:
            finish(account, subscription)

    account.clock.at(instant, fall_due)


def finish(account: Account, subscription: Obj, *, invoice_use: bool = True) -> None:
    """End a subscription, with a last invoice of its use and of what is pending.

    Without `invoice_use` the use of the period that was not invoiced yet is lost.
    """
    if subscription["status"] in subscription_states.ENDED:
        return
    begin, end = period_of(subscription)
    now = account.now()
    used = [item for item in items_of(subscription) if metered(item)]
    pending = pending_of(account, subscription["customer"], subscription["id"], exactly=True)
    invoice = None
    if invoice_use and (used or pending):
        invoice = _draft(account, subscription, "subscription_cycle", (begin, now), advance=True)
        _sweep(account, subscription, invoice)
        for item in used:
            add_metered(account, invoice, item, (begin, now), cut=now < end)
        subscription["latest_invoice"] = invoice["id"]
    subscription_states.end(account, subscription)
    if invoice is not None:
        drafts.announce(account, invoice)


def invoice_now(account: Account, subscription: Obj) -> None:
    """Invoice what is pending at once, as a change of the subscription asks for."""
    begin, _ = period_of(subscription)
    period = (begin, account.now())
    invoice = _draft(account, subscription, "subscription_update", period, advance=True)
    _sweep(account, subscription, invoice)
    subscription_states.change(account, subscription, latest_invoice=invoice["id"])
    drafts.announce(account, invoice)
    drafts.finalize(account, invoice)


def first_period(
    anchor: int, recurring: Obj, now: int, day: int | None
) -> tuple[int, int, Fraction]:
    """Return the first period and how much of a whole one it is."""
    begin, end = around(anchor, recurring, now, day)
    if anchor > now:
        end = anchor
        begin = boundary(anchor, recurring, -1, day)
    return now, end, Fraction(end - now, end - begin)
