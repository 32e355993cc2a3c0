"""Holding the invoice that Stripe made for a period, until all of it is known to be right.

Stripe makes the draft of a period at its boundary and finalizes it about an hour later. Held
(`auto_advance` off) it stays a draft for as long as our side of it takes. Where Stripe was quicker,
or has made no invoice at all, closing goes on all the same: what its own lines do not collect is
then collected by items of ours on an invoice of ours (`activities.invoicing`). Waiting for ever for
a draft that never comes would collect nothing.
"""

from datetime import datetime, timedelta
from typing import Any

from stripe import Invoice, StripeClient

from activities.stripe_calls import stripe_calls
from activities.stripe_invoices import MARK_CUSTOMER, MARK_PERIOD, marks_of, seen
from activities.stripe_periods import StripePeriod, current_period, invoice_of, is_metered
from activities.transactions import transaction
from tallystick.contracts import StepResult
from tallystick.ledger import invoices
from tallystick.ledger.database import Ledger
from tallystick.ledger.notices import raise_notice

DRAFT_LOOK = timedelta(minutes=5)
"""Between looks for a draft; Stripe makes it within minutes, at busy hours within the hour."""
DRAFT_PATIENCE = timedelta(hours=6)
"""After a period's end. A draft that is not there by then is worth an operator's look."""


async def hold(ledger: Ledger, client: StripeClient, of: StripePeriod, now: datetime) -> StepResult:
    """Find the period's invoice and keep it a draft; asks to come again while Stripe has none."""
    with stripe_calls():
        invoice = await invoice_of(client, of)
        if invoice is not None and invoice.status == "draft":
            invoice = await _hold(client, of, invoice)
    if invoice is None:
        return await _without(ledger, of, now)
    with stripe_calls():
        looked = await seen(client, invoice, now)
    async with transaction(ledger) as tx:
        await invoices.note(tx, looked, of.customer_id, purpose="period", ordinal=of.ordinal)
        if invoice.status == "draft":
            return StepResult(words=f"invoice {invoice.id} is held")
        if MARK_PERIOD in marks_of(invoice.metadata):
            return StepResult(words=f"invoice {invoice.id} was held and is final")
        await raise_notice(
            tx,
            of.customer_id,
            key=f"draft-missed:{of.ordinal}",
            kind="draft_missed",
            audience="operator",
            message=f"Stripe finalized invoice {invoice.id} of period {of.ordinal} before it was "
            "complete. What it lacks is collected by another invoice.",
            facts={"invoice_id": invoice.id, "ordinal": of.ordinal},
            at=now,
        )
    return StepResult(words=f"invoice {invoice.id} was final before it could be held")


async def _hold(client: StripeClient, of: StripePeriod, invoice: Invoice) -> Invoice:
    marks = {MARK_CUSTOMER: of.customer_id, MARK_PERIOD: str(of.ordinal)}
    held = not invoice.auto_advance and invoice.automatically_finalizes_at is None
    if held and marks.items() <= marks_of(invoice.metadata).items():
        return invoice
    params: Any = {"auto_advance": False, "metadata": marks}
    return await client.v1.invoices.update_async(invoice.id, params)


async def _without(ledger: Ledger, of: StripePeriod, now: datetime) -> StepResult:
    """Decide what a missing invoice means: wait for it, or go on without."""
    why = _why_none_will_come(of)
    if why is not None:
        return StepResult(words=why)
    assert of.subscription is not None  # noqa: S101 - else none will come
    if now < of.period.end + DRAFT_PATIENCE:
        return StepResult(
            words="Stripe has not made the period's invoice yet", again_at=now + DRAFT_LOOK
        )
    turned = of.ended is not None or current_period(of.subscription).start >= of.period.end
    async with transaction(ledger) as tx:
        await raise_notice(
            tx,
            of.customer_id,
            key=f"no-draft:{of.ordinal}",
            kind="no_draft",
            audience="operator",
            message=f"Stripe has made no invoice for period {of.ordinal} of subscription "
            f"{of.subscription.id}. "
            + (
                "What the period comes to is collected by an invoice of ours."
                if turned
                else "Its own period has not ended; look whether its billing date was changed."
            ),
            facts={"subscription_id": of.subscription.id, "ordinal": of.ordinal},
            at=now,
        )
    if turned:
        return StepResult(words="Stripe made no invoice for the period")
    return StepResult(words="Stripe's own period has not ended", again_at=now + timedelta(hours=1))


def _why_none_will_come(of: StripePeriod) -> str | None:
    if of.subscription is None:
        return "no subscription collects for the account"
    if of.began is not None and of.began >= of.period.end:
        return "the subscription began after the period"
    if of.ends_between_boundaries and of.ended is None:
        return "Stripe makes the last invoice when the subscription is cancelled"
    if of.ended is not None and not is_metered(of.subscription):
        return "the subscription has ended, and had nothing to collect afterwards"
    return None
