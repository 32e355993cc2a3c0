"""What a change of a subscription's items in mid-period costs, as pending invoice items.

A licensed price is credited for the time that is left and its successor charged for it, to the
second, and only where prorations are wanted. The use of a metered price that goes away is billed
whatever was said about prorations: it has been used (facts on Stripe, 'Subscriptions').
"""

from decimal import Decimal
from fractions import Fraction

from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.cycles import metered, period_of
from tallystick.sandbox.stripe.invoice_items import add, of_subscription
from tallystick.sandbox.stripe.lines import cents, metered_quantity, pricing_of
from tallystick.sandbox.stripe.wire import Obj


def book(
    account: Account, subscription: Obj, old: Obj | None, new: Obj | None, *, prorate: bool
) -> None:
    """Book what follows from an item's change; None stands for an item that was not, or goes."""
    same = old is not None and new is not None and _terms(old) == _terms(new)
    if same:
        return
    if old is not None and metered(old):
        _book_use(account, subscription, old)
    for item, sign, word in ((old, -1, "Unused"), (new, 1, "Remaining")):
        if prorate and item is not None and not metered(item):
            _book_time(account, subscription, item, sign, word)


def _terms(item: Obj) -> tuple[str, int | None]:
    return item["price"]["id"], item.get("quantity")


def _book_time(account: Account, subscription: Obj, item: Obj, sign: int, word: str) -> None:
    start, end = period_of(subscription)
    now = account.now()
    part = sign * item["quantity"] * Fraction(end - now, end - start)
    name = account.get("product", item["price"]["product"])["name"]
    add(
        account,
        account.get("customer", subscription["customer"]),
        amount=cents(part, Decimal(item["price"]["unit_amount_decimal"])),
        quantity=Decimal(item["quantity"]),
        pricing=pricing_of(item["price"]),
        parent=of_subscription(subscription["id"], subscription_item=item["id"]),
        period=(now, end),
        description=f"{word} time on {name}",
        proration=True,
    )


def _book_use(account: Account, subscription: Obj, item: Obj) -> None:
    start, end = period_of(subscription)
    of = {"price": item["price"], "after": item["_after"], "start": start, "end": end}
    quantity = metered_quantity(account, subscription["customer"], of)
    name = account.get("product", item["price"]["product"])["name"]
    add(
        account,
        account.get("customer", subscription["customer"]),
        amount=cents(quantity, Decimal(item["price"]["unit_amount_decimal"])),
        quantity=Decimal(quantity),
        pricing=pricing_of(item["price"]),
        parent=of_subscription(subscription["id"], subscription_item=item["id"]),
        period=(start, account.now()),
        description=name,
    )
