"""Grace, reminders, suspension and restoration: what follows from an unpaid invoice.

Each step is one ledger transaction that changes what it says together with the notice that says
it, under a key that names the invoice. A step repeated after a crash therefore finds itself done.
Every step looks at the invoice again under the customer's lock first: a payment that came in a
moment before grace ended suspends nobody. Only a suspension for payment is ever lifted here; one
made by a person stays.
"""

from datetime import datetime
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from temporalio import activity

from activities.transactions import transaction
from tallystick.contracts import StepOrder, StepResult
from tallystick.ledger import agenda, customers, terms
from tallystick.ledger.database import Ledger, Transaction
from tallystick.ledger.notices import raise_notice
from tallystick.plans.agenda import UnpaidInvoice, grace_key, reminder_key, suspension_key
from tallystick.plans.dunning import grace_end

PAYMENT: Literal["payment"] = "payment"
"""Who suspended, where an unpaid invoice did (`customers.suspended_by`)."""

_SETTLED = StepResult(words="the invoice is not overdue any more")


class _Overdue(NamedTuple):
    """An invoice that is late, and when its grace ends, as an instant and in words."""

    invoice: UnpaidInvoice
    ends_at: datetime
    ends: str

    @property
    def facts(self) -> dict[str, str | int | None]:
        return {
            "invoice_id": self.invoice.invoice_id,
            "open_cents": self.invoice.open_cents,
            "failure": self.invoice.failure,
            "grace_ends_at": self.ends_at.isoformat(),
            "pay_at": self.invoice.hosted_url,
        }

    @property
    def pay(self) -> str:
        return f" Pay here: {self.invoice.hosted_url}" if self.invoice.hosted_url else ""


class DunningActivities:
    """Changes customers' standing in `ledger` by what they have not paid."""

    def __init__(self, ledger: Ledger):
        self._ledger = ledger

    @activity.defn
    async def start_grace(self, order: StepOrder) -> StepResult:
        """Tell the customer that a payment failed, and until when service goes on."""
        async with transaction(self._ledger) as tx:
            late = await _overdue(tx, order, order.subject)
            if late is None:
                return _SETTLED
            why = f" ({late.invoice.failure})" if late.invoice.failure else ""
            await raise_notice(
                tx,
                order.customer_id,
                key=grace_key(order.subject),
                kind="grace_started",
                audience="customer",
                message=f"{late.invoice.amount} could not be collected{why}. "
                f"Service goes on until {late.ends}.{late.pay}",
                facts=late.facts,
                at=order.now,
            )
        return StepResult(words=f"in grace until {late.ends}")

    @activity.defn
    async def remind_of_payment(self, order: StepOrder) -> StepResult:
        """Remind of an invoice in grace; the subject is the invoice and the reminder's number."""
        invoice_id, _, number = order.subject.rpartition(":")
        async with transaction(self._ledger) as tx:
            late = await _overdue(tx, order, invoice_id)
            if late is None:
                return _SETTLED
            await raise_notice(
                tx,
                order.customer_id,
                key=reminder_key(invoice_id, int(number)),
                kind="payment_reminder",
                audience="customer",
                message=f"{late.invoice.amount} is still open. Without payment, service stops "
                f"on {late.ends}.{late.pay}",
                facts=late.facts,
                at=order.now,
            )
        return StepResult(words="reminded")

    @activity.defn
    async def suspend_service(self, order: StepOrder) -> StepResult:
        """Stop service for an invoice whose grace has ended; refusals then say why."""
        async with transaction(self._ledger) as tx:
            late = await _overdue(tx, order, order.subject)
            if late is None:
                return _SETTLED
            if late.ends_at > order.now:
                return StepResult(words=f"in grace until {late.ends}", again_at=late.ends_at)
            reason = (
                f"{late.invoice.amount} of invoice {order.subject} was not paid by {late.ends}; "
                f"payment restores service at once.{late.pay}"
            )
            await customers.suspend(tx, order.customer_id, PAYMENT, reason)
            await raise_notice(
                tx,
                order.customer_id,
                key=suspension_key(order.subject),
                kind="service_suspended",
                audience="customer",
                message=f"Service has stopped: {reason}",
                facts=late.facts,
                at=order.now,
            )
        return StepResult(words="service has stopped")

    @activity.defn
    async def restore_service(self, order: StepOrder) -> StepResult:
        """Let a customer spend again once nothing is left whose grace has ended."""
        async with transaction(self._ledger) as tx:
            await customers.lock(tx, order.customer_id)
            for invoice in await agenda.unpaid_invoices(tx, order.customer_id):
                late = await _overdue(tx, order, invoice.invoice_id)
                if late is not None and late.ends_at <= order.now:
                    return StepResult(words=f"invoice {invoice.invoice_id} is still unpaid")
            if not await customers.restore(tx, order.customer_id, PAYMENT):
                return StepResult(words="nothing was suspended for payment")
            await raise_notice(
                tx,
                order.customer_id,
                key=f"restored:{order.now.isoformat()}",
                kind="service_restored",
                audience="customer",
                message="Thank you, your payment has arrived. Service is restored.",
                facts={},
                at=order.now,
            )
        return StepResult(words="service is restored")


async def _overdue(tx: Transaction, order: StepOrder, invoice_id: str) -> _Overdue | None:
    """Return the invoice if it is late at `order.now`, with the customer locked."""
    customer = await customers.lock(tx, order.customer_id)
    for invoice in await agenda.unpaid_invoices(tx, order.customer_id):
        late_since = invoice.late_since(order.now)
        if invoice.invoice_id != invoice_id or late_since is None:
            continue
        standing = await terms.standing(tx, order.customer_id, order.now)
        assert standing is not None  # noqa: S101 - locked above
        assert standing.agreed is not None  # noqa: S101 - plans are append-only
        end = grace_end(late_since, standing.agreed.terms.grace_days, customer.time_zone)
        local = end.astimezone(ZoneInfo(customer.time_zone))
        return _Overdue(invoice, end, local.strftime("%A, %d %B %Y, %H:%M %Z"))
    return None
