"""Invoice lines and what an invoice adds up to.

Each line is rounded half-up to whole cents on its own, so forty small lines round forty times
(facts on Stripe, 'Meters'). A metered line is read again whenever its draft is looked at, until
the draft finalizes.
"""

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.lists import whole
from tallystick.sandbox.stripe.subscription_states import subscription_of
from tallystick.sandbox.stripe.usage import aggregate, visible
from tallystick.sandbox.stripe.wire import Obj

MOST_ITEMS = 250
_WHOLE = Fraction(1)


def cents(quantity: Fraction | int, unit_cents: Decimal) -> int:
    """Return an amount in whole cents, rounded half away from zero."""
    exact = quantity * Fraction(unit_cents)
    away = math.floor(abs(exact) + Fraction(1, 2))
    return away if exact >= 0 else -away


def percent(amount: int, rate: Decimal) -> int:
    """Return a share of an amount in whole cents."""
    return cents(amount, rate / 100)


def pricing_of(price: Obj) -> Obj:
    """Return how a line tells its price."""
    return {
        "type": "price_details",
        "price_details": {"price": price["id"], "product": price["product"]},
        "unit_amount_decimal": price["unit_amount_decimal"],
    }


def _line(invoice: Obj, **fields: Any) -> Obj:
    return {
        "object": "line_item",
        "currency": invoice["currency"],
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "invoice": invoice["id"],
        "livemode": invoice["livemode"],
        "pretax_credit_amounts": [],
        **fields,
    }


def _of_subscription(invoice: Obj, item: Obj, period: tuple[int, int], **fields: Any) -> Obj:
    return _line(
        invoice,
        metadata=dict(item["metadata"]),
        parent={
            "type": "subscription_item_details",
            "invoice_item_details": None,
            "subscription_item_details": {
                "invoice_item": None,
                "proration": False,
                "proration_details": None,
                "subscription": item["subscription"],
                "subscription_item": item["id"],
            },
        },
        period={"start": period[0], "end": period[1]},
        pricing=pricing_of(item["price"]),
        subscription=item["subscription"],
        **fields,
    )


def add_licensed(
    account: Account, invoice: Obj, item: Obj, period: tuple[int, int], part: Fraction = _WHOLE
) -> None:
    """Put a licensed price on an invoice, for a period or a part of one."""
    name = account.get("product", item["price"]["product"])["name"]
    line = _of_subscription(
        invoice,
        item,
        period,
        amount=cents(item["quantity"] * part, Decimal(item["price"]["unit_amount_decimal"])),
        description=f"{item['quantity']} × {name}",
        quantity=item["quantity"],
        quantity_decimal=str(item["quantity"]),
    )
    line["parent"]["subscription_item_details"]["proration"] = part != 1
    _add(account, invoice, line)


def add_metered(
    account: Account, invoice: Obj, item: Obj, period: tuple[int, int], *, cut: bool = False
) -> None:
    """Put a metered price on an invoice, for the period that has ended.

    One that was `cut` short includes the use of the second in which that happened.
    """
    name = account.get("product", item["price"]["product"])["name"]
    line = _of_subscription(invoice, item, period, description=name)
    line["_metered"] = {"price": item["price"], "after": item["_after"], **line["period"]}
    line["_metered"]["end"] += cut
    _add(account, invoice, line)


def metered_quantity(account: Account, customer: str, of: Obj) -> int:
    """Return the use of [start, end) received after the entry numbered `after`, zero at least.

    A customer who is gone and a meter that is archived have none (facts on Stripe,
    'Subscriptions').
    """
    meter = account.get("meter", of["price"]["recurring"]["meter"])
    if meter["status"] != "active" or customer not in account.table("customer"):
        return 0
    entries = visible(account, meter, customer, of["start"], of["end"])
    return max(0, aggregate(meter, [each for each in entries if each.number > of["after"]]))


def count_items(invoice: Obj) -> int:
    """Return how many invoice items are on an invoice; `MOST_ITEMS` is all it can have."""
    return sum(1 for line in invoice["_lines"] if "_item" in line)


def add_item(account: Account, invoice: Obj, item: Obj) -> None:
    """Put a pending invoice item on a draft."""
    item["invoice"] = invoice["id"]
    subscription = subscription_of(item)
    line = _line(
        invoice,
        amount=item["amount"],
        description=item["description"],
        metadata=dict(item["metadata"]),
        parent={
            "type": "invoice_item_details",
            "invoice_item_details": {
                "invoice_item": item["id"],
                "proration": item["proration"],
                "proration_details": None,
                "subscription": subscription,
            },
            "subscription_item_details": None,
        },
        period=dict(item["period"]),
        pricing=item["pricing"],
        quantity=item["quantity"],
        quantity_decimal=item["quantity_decimal"],
        subscription=subscription,
    )
    _add(account, invoice, line | {"_item": item["id"]})


def drop_item(account: Account, invoice: Obj, item_id: str) -> None:
    """Take an invoice item off a draft."""
    invoice["_lines"] = [line for line in invoice["_lines"] if line.get("_item") != item_id]
    price(account, invoice)


def _add(account: Account, invoice: Obj, line: Obj) -> None:
    # In a table only so that it has an id; lines are reached through their invoice.
    invoice["_lines"].append(account.add("line_item", "il", line))
    price(account, invoice)


def price(account: Account, invoice: Obj) -> None:
    """Work out a draft anew: metered quantities, taxes, totals and what is due."""
    customer = account.table("customer").get(invoice["customer"], {})
    rate: Decimal = customer.get("_tax_percent", Decimal(0))
    for line in invoice["_lines"]:
        if "_metered" in line:
            _read_meter(account, invoice, line)
        line["subtotal"] = line["amount"]
        line["taxes"] = _taxes(line["amount"], rate)
    lines: list[Obj] = invoice["_lines"]
    subtotal = sum(line["amount"] for line in lines)
    tax = sum(tax["amount"] for line in lines for tax in line["taxes"])
    total, balance = subtotal + tax, customer.get("balance", 0)
    due = max(0, total + balance)
    invoice |= {
        "lines": whole(f"/v1/invoices/{invoice['id']}/lines", lines),
        "subtotal": subtotal,
        "subtotal_excluding_tax": subtotal,
        "total": total,
        "total_excluding_tax": subtotal,
        "total_taxes": [{**each, "amount": tax} for each in _taxes(subtotal, rate)],
        "starting_balance": balance,
        "amount_due": due,
        "amount_remaining": due,
    }


def _read_meter(account: Account, invoice: Obj, line: Obj) -> None:
    quantity = metered_quantity(account, invoice["customer"], line["_metered"])
    unit = Decimal(line["_metered"]["price"]["unit_amount_decimal"])
    line |= {
        "amount": cents(quantity, unit),
        "quantity": quantity,
        "quantity_decimal": str(quantity),
    }


def _taxes(amount: int, rate: Decimal) -> list[Obj]:
    if not rate:
        return []
    return [
        {
            "amount": percent(amount, rate),
            "tax_behavior": "exclusive",
            "tax_rate_details": {"tax_rate": "txr_sandbox"},
            "taxability_reason": "standard_rated",
            "taxable_amount": amount,
            "type": "tax_rate_details",
        }
    ]
