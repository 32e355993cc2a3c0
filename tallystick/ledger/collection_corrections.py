"""What a meter has collected wrongly of a period whose invoice is final, for the next statement.

Such a correction is no charge: the charge was on the period's own statement, and stands. It is
dated into the open period under the lock that usage is dated under (`ledger.accounts`), so that
exactly one statement collects it. Its key is the discrepancy: booked again, nothing happens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from tallystick.ledger import accounts
from tallystick.ledger.account_tables import BillingAccount, Invoice, Statement, StatementLine
from tallystick.ledger.database import Transaction
from tallystick.ledger.reconciliation_tables import CollectionCorrection, Discrepancy


@dataclass(frozen=True, slots=True)
class MeteredPeriod:
    """A period whose invoice is final and collects what Stripe's meter counted.

    `line` is the number of the statement line that says how much that has to be, `amount_nano_usd`,
    and `corrected_nano_usd` what later statements collect of it already. `invoices` are Stripe's
    ids of those that collect the statement.
    """

    statement_id: int
    ordinal: int
    line: int
    amount_nano_usd: int
    corrected_nano_usd: int
    invoices: Sequence[str]


async def metered_period(tx: Transaction, customer_id: str, at: datetime) -> MeteredPeriod | None:
    """Return the period of an instant; None where its meter collects nothing, or can still grow."""
    corrected = (
        select(func.coalesce(func.sum(col(CollectionCorrection.amount_nano_usd)), 0))
        .join(
            Discrepancy,
            col(Discrepancy.discrepancy_id) == col(CollectionCorrection.discrepancy_id),
        )
        .where(
            col(CollectionCorrection.customer_id) == col(Statement.customer_id),
            col(Discrepancy.start_at) >= col(Statement.period_start),
            col(Discrepancy.start_at) < col(Statement.period_end),
        )
        .scalar_subquery()
    )
    statement = (
        select(
            col(Statement.statement_id),
            col(Statement.ordinal),
            col(StatementLine.number),
            col(StatementLine.amount_nano_usd),
            corrected.label("corrected"),
        )
        .join(StatementLine, col(StatementLine.statement_id) == col(Statement.statement_id))
        .join(BillingAccount, col(BillingAccount.customer_id) == col(Statement.customer_id))
        .where(
            col(Statement.customer_id) == customer_id,
            col(Statement.period_start) <= at,
            col(Statement.period_end) > at,
            col(Statement.period_end) <= col(BillingAccount.invoiced_until),
            col(StatementLine.collected_by) == "metered",
        )
    )
    row = (await tx.execute(statement)).one_or_none()
    if row is None:
        return None
    collecting = select(col(Invoice.stripe_invoice_id)).where(
        col(Invoice.customer_id) == customer_id,
        col(Invoice.ordinal) == row.ordinal,
        col(Invoice.status) != "void",
    )
    return MeteredPeriod(
        statement_id=row.statement_id,
        ordinal=row.ordinal,
        line=row.number,
        amount_nano_usd=row.amount_nano_usd,
        corrected_nano_usd=int(row.corrected),
        invoices=[each.stripe_invoice_id for each in await tx.execute(collecting)],
    )


async def is_booked(tx: Transaction, discrepancy_id: int) -> bool:
    """Tell whether a statement makes up for the discrepancy."""
    booked = select(col(CollectionCorrection.discrepancy_id)).where(
        col(CollectionCorrection.discrepancy_id) == discrepancy_id
    )
    return (await tx.execute(booked)).one_or_none() is not None


async def add(
    tx: Transaction,
    *,
    discrepancy_id: int,
    customer_id: str,
    amount_nano_usd: int,
    reason: str,
    at: datetime,
) -> None:
    """Have the next statement collect an amount, or give it back where it is negative."""
    account = accounts.share_lock(literal(customer_id))
    await tx.execute(
        insert(CollectionCorrection)
        .values(
            discrepancy_id=discrepancy_id,
            customer_id=customer_id,
            amount_nano_usd=amount_nano_usd,
            billed_at=accounts.billed_at(literal(at), account),
            reason=reason,
        )
        .on_conflict_do_nothing(index_elements=["discrepancy_id"])
    )
