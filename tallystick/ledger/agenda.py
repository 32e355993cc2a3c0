"""What the ledger knows of an account, read in one go for `tallystick.plans.agenda`.

Read in one snapshot: a payment that is noted while this reads is seen with all that it changed, or
not at all, so the agenda never mixes two states of an account.
"""

from datetime import datetime

from sqlalchemy import any_, func, select
from sqlmodel import col

from tallystick.ledger import terms
from tallystick.ledger.account_tables import (
    BillingAccount,
    Grant,
    Invoice,
    Notice,
    Statement,
    StripeEvent,
    TopUp,
    Wallet,
)
from tallystick.ledger.database import Ledger, Transaction, entity, snapshot
from tallystick.ledger.tables import Customer
from tallystick.plans import PlanTerms
from tallystick.plans.agenda import AccountBooks, AccountView, UnpaidInvoice
from tallystick.plans.periods import period_at

EVENTS_AT_ONCE = 5_000
"""Events that one step looks at; the rest waits for the next look."""


async def account_view(ledger: Ledger, customer_id: str, now: datetime) -> AccountView | None:
    """Return the customer's account as it stands at `now`, or None for an unknown customer."""
    async with ledger.begin() as tx:
        await snapshot(tx)
        standing = await terms.standing(tx, customer_id, now)
        if standing is None:
            return None
        customer = standing.customer
        agreed = standing.agreed.terms if standing.agreed else PlanTerms(model="pass-through")
        told = await tx.scalars(
            select(col(Notice.key)).where(col(Notice.customer_id) == customer_id)
        )
        return AccountView(
            customer_id=customer_id,
            time_zone=customer.time_zone,
            suspended_by=customer.suspended_by,
            grace_days=agreed.grace_days,
            reminder_days=agreed.reminder_days,
            books=await _books(tx, customer, now),
            invoices=await unpaid_invoices(tx, customer_id),
            told=frozenset(told),
            next_expiry=await _next_expiry(tx, customer_id),
            open_top_up=await _open_top_up(tx, customer_id),
            untold=await _untold(tx, customer_id),
            events=await _events(tx, customer_id),
        )


async def _books(tx: Transaction, customer: Customer, now: datetime) -> AccountBooks | None:
    statement = select(BillingAccount).where(
        col(BillingAccount.customer_id) == customer.customer_id
    )
    row = (await tx.execute(statement)).one_or_none()
    if row is None:
        return None
    account = entity(BillingAccount, row)
    _, period = period_at(account.anchor, account.time_zone, account.invoiced_until)
    current = await _terms_at(tx, customer.customer_id, max(account.invoiced_until, account.anchor))
    following = await _terms_at(tx, customer.customer_id, max(period.end, now))
    first_terms = await _terms_at(tx, customer.customer_id, account.anchor)
    return AccountBooks(
        anchor=account.anchor,
        time_zone=account.time_zone,
        opened_at=account.opened_at,
        invoiced_until=account.invoiced_until,
        subscription_id=account.stripe_subscription_id,
        aligned_plan=account.aligned_plan,
        plan_after=following.plan,
        wants_subscription=current.terms.model != "prepaid",
        opening_statement=bool(first_terms.terms.base_fee_usd)
        and not await _has_statement(tx, customer.customer_id, 0),
        cancel_at=account.cancel_at,
        ended_at=account.ended_at,
    )


async def _terms_at(tx: Transaction, customer_id: str, at: datetime) -> terms.TermsInForce:
    standing = await terms.standing(tx, customer_id, at)
    assert standing is not None  # noqa: S101 - the caller has found the customer
    assert standing.agreed is not None, f"plan {standing.customer.plan!r} has no terms"  # noqa: S101
    return standing.agreed


async def _has_statement(tx: Transaction, customer_id: str, ordinal: int) -> bool:
    statement = select(col(Statement.statement_id)).where(
        col(Statement.customer_id) == customer_id, col(Statement.ordinal) == ordinal
    )
    return (await tx.execute(statement)).first() is not None


async def unpaid_invoices(tx: Transaction, customer_id: str) -> tuple[UnpaidInvoice, ...]:
    """Return the customer's finalized invoices that wait for money, oldest first."""
    statement = (
        select(Invoice)
        .where(
            col(Invoice.customer_id) == customer_id,
            col(Invoice.status).in_(("open", "uncollectible")),
            # An unpaid top-up is nobody's debt: the credit was not granted.
            col(Invoice.purpose) != "top_up",
        )
        .order_by(col(Invoice.created_at))
    )
    return tuple(
        UnpaidInvoice(
            invoice_id=invoice.stripe_invoice_id,
            open_cents=invoice.amount_due_cents - invoice.amount_paid_cents,
            failed_at=invoice.failed_at,
            due_at=invoice.due_at,
            checked_at=invoice.checked_at,
            failure=invoice.failure,
            next_payment_attempt=invoice.next_payment_attempt,
            hosted_url=invoice.hosted_url,
        )
        for invoice in (entity(Invoice, row) for row in await tx.execute(statement))
    )


async def _next_expiry(tx: Transaction, customer_id: str) -> datetime | None:
    statement = (
        select(func.min(col(Grant.expires_at)))
        .join(Wallet, col(Wallet.customer_id) == col(Grant.customer_id))
        .where(
            col(Grant.customer_id) == customer_id,
            col(Grant.grant_id) == any_(col(Wallet.open_grants)),
        )
    )
    return (await tx.execute(statement)).scalar_one()


async def _open_top_up(tx: Transaction, customer_id: str) -> int | None:
    statement = select(col(TopUp.top_up_id)).where(
        col(TopUp.customer_id) == customer_id,
        col(TopUp.granted_at).is_(None),
        col(TopUp.failed_at).is_(None),
    )
    return (await tx.execute(statement)).scalar_one_or_none()


async def _untold(tx: Transaction, customer_id: str) -> int:
    statement = (
        select(func.count())
        .select_from(Notice)
        .where(col(Notice.customer_id) == customer_id, col(Notice.delivered_at).is_(None))
    )
    return (await tx.execute(statement)).scalar_one()


async def _events(tx: Transaction, customer_id: str) -> tuple[str, ...]:
    statement = (
        select(col(StripeEvent.event_id))
        .where(
            col(StripeEvent.customer_id) == customer_id,
            col(StripeEvent.applied_at).is_(None),
            col(StripeEvent.parked_at).is_(None),
        )
        .order_by(col(StripeEvent.received_at), col(StripeEvent.event_id))
        .limit(EVENTS_AT_ONCE)
    )
    return tuple(await tx.scalars(statement))
