"""Looking at an invoice again: what Stripe shows is written down, and what follows from it done.

Events, timers and people all end here. A look may be repeated and overtaken: the ledger keeps the
newest, and a top-up that is seen paid becomes credit once.
"""

from datetime import datetime

from stripe import StripeClient

from activities.stripe_calls import stripe_calls
from activities.stripe_invoices import fetch, without_money
from activities.transactions import transaction
from tallystick.ledger import invoices, top_ups
from tallystick.ledger.account_tables import Invoice
from tallystick.ledger.database import Ledger, Transaction
from tallystick.ledger.invoices import WITHOUT_MONEY, Purpose
from tallystick.ledger.notices import raise_notice


async def refresh_invoice(
    ledger: Ledger, client: StripeClient, stripe_invoice_id: str, at: datetime
) -> Invoice | None:
    """Ask Stripe about an invoice and write down what it says; returns it as it is now known.

    None, and no question, for an invoice that is not of ours: one of a period is known from when
    its draft is held, and nothing that happened before is missed, since everything is fetched then.

    Raises:
        ApplicationError: a row of the error table.
    """
    async with transaction(ledger) as tx:
        known = await invoices.find(tx, stripe_invoice_id)
    if known is None:
        return None
    with stripe_calls():
        invoice, looked = await fetch(client, stripe_invoice_id, at)
    async with transaction(ledger) as tx:
        row = await invoices.note(
            tx,
            looked,
            known.customer_id,
            purpose=_purpose(known),
            ordinal=known.ordinal,
        )
        if row.status == "paid":
            await _paid(tx, row, without_money(invoice), at)
    return row


def _purpose(row: Invoice) -> Purpose:
    match row.purpose:
        case "period" | "opening" | "top_up":
            return row.purpose
        case _:
            raise ValueError(f"invoice {row.stripe_invoice_id} is for {row.purpose!r}")


async def _paid(tx: Transaction, row: Invoice, without: str | None, at: datetime) -> None:
    """Do what follows from a paid invoice; again, nothing."""
    if row.purpose == "top_up":
        top_up = await top_ups.of_invoice(tx, row.stripe_invoice_id)
        if top_up is not None and top_up.top_up_id is not None:
            await top_ups.granted(tx, top_up.top_up_id, at)
    if without is not None:
        await raise_notice(
            tx,
            row.customer_id,
            key=f"paid-without-money:{row.stripe_invoice_id}",
            kind=WITHOUT_MONEY,
            audience="operator",
            message=f"Invoice {row.stripe_invoice_id} counts as paid, but no money was collected: "
            f"{without}.",
            facts={"invoice_id": row.stripe_invoice_id, "total_cents": row.total_cents},
            at=at,
        )
