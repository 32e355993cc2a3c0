"""A customer's balance with us: below zero is credit, above zero is owed with the next invoice."""

from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.endpoint import Call, Endpoint
from tallystick.sandbox.stripe.lists import Paging, page
from tallystick.sandbox.stripe.wire import Obj

PATH = "/v1/customers/{id}/balance_transactions"


def move(
    account: Account, customer: Obj, cents: int, why: str, *, invoice: str | None = None
) -> None:
    """Add to a customer's balance and keep a transaction of it; nothing for zero cents.

    The caller emits the event of the customer's change.
    """
    if not cents:
        return
    customer["balance"] += cents
    account.add(
        "balance transaction",
        "cbtxn",
        {
            "object": "customer_balance_transaction",
            "amount": cents,
            "created": account.now(),
            "credit_note": None,
            "currency": customer["currency"] or "usd",
            "customer": customer["id"],
            "description": None,
            "ending_balance": customer["balance"],
            "invoice": invoice,
            "livemode": customer["livemode"],
            "metadata": {},
            "type": why,
        },
    )


async def listed(call: Call, params: Paging) -> Obj:
    """List what moved a customer's balance, newest first."""
    call.account.get("customer", call.ids["id"])
    rows = reversed(call.account.table("balance transaction").values())
    return page(call.path, [row for row in rows if row["customer"] == call.ids["id"]], params)


ENDPOINTS = [Endpoint("GET", PATH, Paging, listed)]
