"""From the ledger's row of a Stripe invoice to what is shown of it beside a statement."""

from tallystick.ledger.account_tables import Invoice
from tallystick.statements.sheet import InvoiceSeen


def seen_of(invoice: Invoice) -> InvoiceSeen:
    """Return what Stripe showed last of an invoice."""
    return InvoiceSeen(
        invoice_id=invoice.stripe_invoice_id,
        purpose=invoice.purpose,
        status=invoice.status,
        currency=invoice.currency,
        total_cents=invoice.total_cents,
        tax_cents=invoice.tax_cents,
        paid_cents=invoice.amount_paid_cents,
        due_at=invoice.due_at,
        paid_at=invoice.paid_at,
    )
