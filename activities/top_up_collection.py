"""`collect_top_up`: credit that was asked for is invoiced, charged, and granted or given up.

The one danger is money without credit, or credit without money. So nobody but this step collects
the invoice (Stripe's own retries are off for it), credit is granted when Stripe shows it paid, and
a top-up is given up only once its invoice is void, from when nobody can pay it any more. Whatever
was paid in between, and whoever looks, is granted by its number, once (`activities.looks`).

Every attempt looks first at how the invoice stands: a payment whose answer was lost is found made,
or found declined, and is not made again.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import stripe
from stripe import Invoice, StripeClient
from temporalio import activity

from activities import payment_words
from activities.failures import failure
from activities.looks import refresh_invoice
from activities.stripe_calls import stripe_calls
from activities.stripe_clients import refusal
from activities.stripe_invoices import (
    MARK_CUSTOMER,
    MARK_TOP_UP,
    add_item,
    ensure_invoice,
    lines,
    open_payment,
    seen,
)
from activities.stripe_once import create_once
from activities.transactions import transaction
from tallystick.contracts import StepOrder, StepResult
from tallystick.errors import CUSTOMER_UNMAPPED, PAYMENT_DECLINED
from tallystick.ledger import customers, invoices, top_ups
from tallystick.ledger.account_tables import TopUp
from tallystick.ledger.database import Ledger
from tallystick.plans.cents import NANO_PER_CENT

PROCESSING_LOOK = timedelta(hours=1)
"""A payment that a bank takes its time over (a debit, for instance) is looked at this often."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What an attempt to collect came to: `failure` in words, or `processing`, or neither: paid."""

    failure: str | None = None
    processing: bool = False


class TopUpActivities:
    """Collects the top-ups of `ledger` through Stripe."""

    def __init__(self, ledger: Ledger, client: StripeClient):
        self._ledger = ledger
        self._client = client

    @activity.defn
    async def collect_top_up(self, order: StepOrder) -> StepResult:
        """Collect the top-up that the subject numbers; it is granted or given up afterwards."""
        async with transaction(self._ledger) as tx:
            top_up = await top_ups.get(tx, int(order.subject))
            customer = await customers.get(tx, order.customer_id)
        assert top_up is not None and customer is not None, "a step without a top-up"  # noqa: S101, PT018
        if top_up.granted_at is not None or top_up.failed_at is not None:
            return StepResult(words="the top-up is closed")
        if customer.stripe_customer_id is None:
            told = f"customer {order.customer_id!r} has no Stripe customer; map it"
            raise failure(CUSTOMER_UNMAPPED, told)
        invoice = await self._invoice(top_up, customer.stripe_customer_id, order.now)
        outcome = _Outcome()
        if invoice.status == "open":
            outcome = await self._collect(invoice, top_up)
        if outcome.processing:
            return StepResult(
                words="the payment is being processed", again_at=order.now + PROCESSING_LOOK
            )
        if outcome.failure is not None:
            await self._void(invoice.id)
        row = await refresh_invoice(self._ledger, self._client, invoice.id, order.now)
        if row is not None and row.status == "paid":
            return StepResult(words="paid, and granted as credit")
        why = outcome.failure or "its invoice was voided"
        async with transaction(self._ledger) as tx:
            await top_ups.failed(tx, int(order.subject), why, order.now)
        return StepResult(words=f"given up: {why}")

    async def _invoice(self, top_up: TopUp, stripe_customer_id: str, now: datetime) -> Invoice:
        """Return the top-up's invoice, final, made now if there is none."""
        number, cents = top_up.top_up_id, top_up.amount_nano_usd // NANO_PER_CENT
        marks = {MARK_CUSTOMER: top_up.customer_id, MARK_TOP_UP: str(number)}
        with stripe_calls():
            if top_up.stripe_invoice_id is not None:
                invoice = await self._client.v1.invoices.retrieve_async(top_up.stripe_invoice_id)
            else:
                invoice = await ensure_invoice(
                    self._client,
                    stripe_customer_id,
                    marks=marks,
                    key=f"top-up-{number}",
                    since=top_up.requested_at,
                    terms_days=0,
                    description="Prepaid credit",
                )
            if invoice.status == "draft":
                if not await lines(self._client, invoice.id):
                    await add_item(
                        self._client,
                        invoice,
                        marks=marks,
                        key=f"top-up-{number}-item@{invoice.id}",
                        amount_cents=cents,
                        description="Prepaid credit for Claude usage",
                    )
                invoice = await self._client.v1.invoices.finalize_invoice_async(
                    invoice.id, {"auto_advance": False}
                )
            looked = await seen(self._client, invoice, now)
        async with transaction(self._ledger) as tx:
            await invoices.note(tx, looked, top_up.customer_id, purpose="top_up")
            await top_ups.attach_invoice(tx, int(number or 0), invoice.id)
        return invoice

    async def _collect(self, invoice: Invoice, top_up: TopUp) -> _Outcome:
        """Charge an open invoice once, or find out what became of the charge before."""
        with stripe_calls():
            if invoice.attempted:
                return await self._found(invoice)
            if not await self._has_method(invoice):
                return _Outcome(failure=payment_words.NO_METHOD)
            try:
                await create_once(
                    lambda params, options: self._client.v1.invoices.pay_async(
                        invoice.id, params, options
                    ),
                    {"off_session": True},
                    f"top-up-{top_up.top_up_id}-pay",
                )
            except stripe.StripeError as error:
                if refusal(error).row is not PAYMENT_DECLINED:
                    raise
                return _Outcome(failure=payment_words.of_error(error))
        return _Outcome()

    async def _found(self, invoice: Invoice) -> _Outcome:
        intent = await open_payment(self._client, invoice.id)
        if intent is not None and intent.status == "processing":
            return _Outcome(processing=True)
        return _Outcome(failure=payment_words.of_intent(intent))

    async def _has_method(self, invoice: Invoice) -> bool:
        assert isinstance(invoice.customer, str)  # noqa: S101 - it was not expanded
        customer = await self._client.v1.customers.retrieve_async(invoice.customer)
        settings = customer.invoice_settings
        default = settings.default_payment_method if settings else None
        return bool(default or customer.default_source)

    async def _void(self, invoice_id: str) -> None:
        """Void the invoice, so that it collects nothing any more; a paid one stays paid."""
        with stripe_calls():
            invoice = await self._client.v1.invoices.retrieve_async(invoice_id)
            if invoice.status in ("open", "uncollectible"):
                await self._client.v1.invoices.void_invoice_async(invoice_id)
