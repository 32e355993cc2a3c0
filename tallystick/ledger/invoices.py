"""Stripe's invoices as they were seen last, and which of their items collect which statement line.

Looks can overtake each other: one that began earlier may be written later. So a look says when it
began, and an older one never takes the place of a newer; and since an invoice that is paid or void
stays so, whatever an older look says, such a look is always taken and never undone.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import ColumnElement, and_, case, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from tallystick.ledger.account_tables import Invoice, Statement, StatementItem, StatementLine
from tallystick.ledger.database import Transaction, entity

Purpose = Literal["period", "opening", "top_up"]
OPENING = 0
"""The number of the statement that opens an account."""
FINAL = ("paid", "void")
"""What an invoice never leaves."""
WITHOUT_MONEY = "paid_without_money"
"""The kind of notice about an invoice that is paid although nothing was collected through Stripe;
its facts have the `invoice_id`."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An invoice as Stripe showed it to a look that began at `checked_at`. Money is in cents.

    `failing` says that a payment was tried, and something is still open; `failure` why in words.
    """

    stripe_invoice_id: str
    status: str
    currency: str
    total_cents: int
    tax_cents: int
    amount_due_cents: int
    amount_paid_cents: int
    created_at: datetime
    finalized_at: datetime | None
    due_at: datetime | None
    paid_at: datetime | None
    failing: bool
    failure: str | None
    attempt_count: int
    next_payment_attempt: datetime | None
    hosted_url: str | None
    checked_at: datetime


async def note(
    tx: Transaction, seen: Seen, customer_id: str, *, purpose: Purpose, ordinal: int | None = None
) -> Invoice:
    """Write down what a look has shown, unless a newer one was written before; returns the row.

    `failed_at` is when the first look saw a payment fail since it was last paid in full: what the
    customer is told and what grace is counted from.
    """
    shown = asdict(seen)
    failing = shown.pop("failing")
    statement = insert(Invoice).values(
        **shown,
        customer_id=customer_id,
        purpose=purpose,
        ordinal=ordinal,
        failed_at=seen.checked_at if failing else None,
    )
    new = statement.excluded
    first_failure = func.coalesce(col(Invoice.failed_at), new.failed_at)
    newer = and_(
        new.checked_at >= col(Invoice.checked_at),
        # Two looks of one instant: a draft was seen before what it became.
        or_(new.status != "draft", col(Invoice.status) == "draft"),
    )
    await tx.execute(
        statement.on_conflict_do_update(
            index_elements=["stripe_invoice_id"],
            set_={
                **{name: new[name] for name in shown if name != "stripe_invoice_id"},
                "failed_at": case((new.failed_at.is_not(None), first_failure), else_=None),
            },
            where=and_(col(Invoice.status).not_in(FINAL), or_(newer, new.status.in_(FINAL))),
        )
    )
    row = await find(tx, seen.stripe_invoice_id)
    assert row is not None  # noqa: S101 - written above
    return row


async def find(tx: Transaction, stripe_invoice_id: str) -> Invoice | None:
    """Return the invoice as it was seen last, or None where it was never seen."""
    statement = select(Invoice).where(col(Invoice.stripe_invoice_id) == stripe_invoice_id)
    row = (await tx.execute(statement)).one_or_none()
    return entity(Invoice, row) if row else None


async def of_period(tx: Transaction, customer_id: str, ordinal: int) -> Sequence[Invoice]:
    """Return the invoices that collect the statement of that number, as they were made."""
    return await _listed(tx, customer_id, col(Invoice.ordinal) == ordinal)


async def top_ups_paid(
    tx: Transaction, customer_id: str, start: datetime, end: datetime
) -> Sequence[Invoice]:
    """Return the invoices of credit that were paid from `start` on and before `end`."""
    paid = (col(Invoice.paid_at) >= start, col(Invoice.paid_at) < end)
    return await _listed(tx, customer_id, col(Invoice.purpose) == "top_up", *paid)


async def _listed(
    tx: Transaction, customer_id: str, *which: ColumnElement[bool]
) -> Sequence[Invoice]:
    statement = (
        select(Invoice)
        .where(col(Invoice.customer_id) == customer_id, *which)
        .order_by(col(Invoice.created_at), col(Invoice.stripe_invoice_id))
    )
    return [entity(Invoice, row) for row in await tx.execute(statement)]


# --- What is to be collected ----------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Collection:
    """A statement by what collects it."""

    statement_id: int
    ordinal: int
    period_end: datetime
    lines: tuple[StatementLine, ...]


async def collection(tx: Transaction, customer_id: str, ordinal: int) -> Collection | None:
    """Return what a period's statement collects; None before it is written."""
    found = await _collections(tx, customer_id, col(Statement.ordinal) == ordinal)
    return found[0] if found else None


async def uncollected_openings(tx: Transaction, customer_id: str) -> list[Collection]:
    """Return statements with a fee for a subscription that begins, which no item collects yet.

    That is the fee of a `new_subscription`, and the fee of the statement that opens the account.
    """
    collected = select(col(StatementItem.number)).where(
        col(StatementItem.statement_id) == col(StatementLine.statement_id),
        col(StatementItem.number) == col(StatementLine.number),
    )
    begins = or_(
        col(StatementLine.collected_by) == "new_subscription",
        and_(col(StatementLine.collected_by) == "subscription", col(Statement.ordinal) == OPENING),
    )
    waiting = (
        select(col(StatementLine.statement_id))
        .where(
            col(StatementLine.statement_id) == col(Statement.statement_id),
            begins,
            col(StatementLine.amount_cents) != 0,
            ~collected.exists(),
        )
        .correlate(Statement)
    )
    return await _collections(tx, customer_id, waiting.exists())


def opening_lines(collection: Collection) -> list[StatementLine]:
    """Return the lines that are collected when a subscription begins."""
    by = (
        ("new_subscription", "subscription")
        if collection.ordinal == OPENING
        else ("new_subscription",)
    )
    return [line for line in collection.lines if line.collected_by in by and line.amount_cents]


async def _collections(tx: Transaction, customer_id: str, *which: object) -> list[Collection]:
    statements = (
        select(
            col(Statement.statement_id),
            col(Statement.ordinal),
            col(Statement.period_end),
        )
        .where(col(Statement.customer_id) == customer_id, *which)  # pyright: ignore[reportArgumentType]
        .order_by(col(Statement.ordinal))
    )
    found: list[Collection] = []
    for row in (await tx.execute(statements)).all():
        lines = (
            select(StatementLine)
            .where(col(StatementLine.statement_id) == row.statement_id)
            .order_by(col(StatementLine.number))
        )
        found.append(
            Collection(
                statement_id=row.statement_id,
                ordinal=row.ordinal,
                period_end=row.period_end,
                lines=tuple(entity(StatementLine, line) for line in await tx.execute(lines)),
            )
        )
    return found


async def note_item(
    tx: Transaction, statement_id: int, number: int, item_id: str, stripe_invoice_id: str
) -> None:
    """Note that an invoice item collects a line of a statement; noted again, nothing changes."""
    await tx.execute(
        insert(StatementItem)
        .values(
            statement_id=statement_id,
            number=number,
            stripe_invoice_item_id=item_id,
            stripe_invoice_id=stripe_invoice_id,
        )
        .on_conflict_do_nothing()
    )
