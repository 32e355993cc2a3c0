"""The base fee of a subscription's first period: an invoice of ours, made when it begins.

The fee is a line of a statement, of the one that opens the account or of the period before another
model begins. Each such line that no item collects yet is put on an invoice of its own and made
final. That an item collects it is written down last, so a step that is killed in between finds the
line again, and by its marks the invoice and the item.
"""

from datetime import datetime

from stripe import StripeClient

from activities.stripe_calls import stripe_calls
from activities.stripe_invoices import (
    MARK_CUSTOMER,
    MARK_LINE,
    MARK_STATEMENT,
    add_item,
    ensure_invoice,
    lines,
    seen,
)
from activities.stripe_periods import StripePeriod
from activities.transactions import transaction
from tallystick.ledger import invoices
from tallystick.ledger.database import Ledger
from tallystick.ledger.invoices import Collection, opening_lines

MARK_OPENING = "tallystick_opening"


async def collect_opening_fees(
    ledger: Ledger, client: StripeClient, of: StripePeriod, terms_days: int, now: datetime
) -> None:
    """Invoice what is open of fees for subscriptions that begin, payable in so many days."""
    async with transaction(ledger) as tx:
        fees = await invoices.uncollected_openings(tx, of.customer_id)
    for fee in fees:
        await _collect(ledger, client, of, fee, terms_days=terms_days, now=now)


async def _collect(
    ledger: Ledger,
    client: StripeClient,
    of: StripePeriod,
    fee: Collection,
    *,
    terms_days: int,
    now: datetime,
) -> None:
    marks = {
        MARK_CUSTOMER: of.customer_id,
        MARK_STATEMENT: str(fee.statement_id),
        MARK_OPENING: "yes",
    }
    with stripe_calls():
        invoice = await ensure_invoice(
            client,
            of.stripe_customer_id,
            marks=marks,
            key=f"statement-{fee.statement_id}-opening-{terms_days}",
            since=fee.period_end,
            terms_days=terms_days,
            description="Opening of the subscription",
        )
        items = {
            int(line.marks[MARK_LINE]): line.item_id or ""
            for line in await lines(client, invoice.id)
            if MARK_LINE in line.marks
        }
        for line in opening_lines(fee):
            if line.number not in items:
                items[line.number] = await add_item(
                    client,
                    invoice,
                    marks={**marks, MARK_LINE: str(line.number)},
                    key=f"statement-{fee.statement_id}-{line.number}@{invoice.id}",
                    amount_cents=line.amount_cents,
                    description=line.description,
                )
        if invoice.status == "draft":
            invoice = await client.v1.invoices.finalize_invoice_async(
                invoice.id, {"auto_advance": True}
            )
        looked = await seen(client, invoice, now)
    async with transaction(ledger) as tx:
        await invoices.note(tx, looked, of.customer_id, purpose="opening", ordinal=fee.ordinal)
        for number, item_id in items.items():
            await invoices.note_item(tx, fee.statement_id, number, item_id, invoice.id)
