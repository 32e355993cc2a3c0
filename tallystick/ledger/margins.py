"""What usage has brought in and cost, added up in the database: by customer, and by day and model.

Each sum comes both ways from one pass over its rows (GROUPING SETS): a month of a million records
comes back as a line for each customer and one for each day and model, however they are looked at.
Days are UTC's, as in Anthropic's reports. What was charged and cost is what holds now, adjustments
included, and belongs to the day on which the usage was served; so a correction changes the day it
corrects, and the day can still be laid beside Anthropic's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Row, Text, exists, func, literal_column, select, tuple_
from sqlmodel import col

from tallystick.ledger import attempts
from tallystick.ledger.account_tables import Invoice, Notice
from tallystick.ledger.database import Transaction
from tallystick.ledger.effective import effective
from tallystick.ledger.invoices import WITHOUT_MONEY
from tallystick.ledger.reconciliation_tables import AttemptSettlement, ProviderCost
from tallystick.ledger.tables import Attempt, Outcome


@dataclass(frozen=True, slots=True)
class Place:
    """Whose sum it is: a customer's, or else that of a model (as replies name it) on a day."""

    customer_id: str | None
    day: date | None
    model: str | None


@dataclass(frozen=True, slots=True)
class Answered:
    """Sums of answered requests. `unpriced` of them have neither cost nor charge yet."""

    place: Place
    requests: int
    unpriced: int
    charge_nano_usd: int
    cost_usd: Decimal


async def answered(tx: Transaction, start: datetime, end: datetime) -> list[Answered]:
    """Return sums of what was served in [start, end)."""
    usage = effective()
    rows = select(
        usage.c.customer_id,
        _day(usage.c.served_at),
        usage.c.model,
        usage.c.cost_usd,
        usage.c.charge_nano_usd,
    ).where(usage.c.served_at >= start, usage.c.served_at < end)
    summed = _both_ways(
        rows,
        requests=lambda row: func.count(),
        unpriced=lambda row: func.count().filter(row.cost_usd.is_(None)),
        charge=lambda row: func.coalesce(func.sum(row.charge_nano_usd), 0),
        cost=lambda row: func.coalesce(func.sum(row.cost_usd), 0),
    )
    return [
        Answered(_place(row), row.requests, row.unpriced, int(row.charge), Decimal(row.cost))
        for row in await tx.execute(summed)
    ]


@dataclass(frozen=True, slots=True)
class Settled:
    """What calls without an answer have cost, as Anthropic's report has told it since."""

    place: Place
    cost_usd: Decimal


async def settled(tx: Transaction, start: datetime, end: datetime) -> list[Settled]:
    """Return sums of the calls of [start, end) that were settled, and not answered after all."""
    rows = (
        select(
            col(Attempt.customer_id),
            _day(col(Attempt.started_at)),
            col(Attempt.model),
            col(AttemptSettlement.cost_usd),
        )
        .join(AttemptSettlement, col(AttemptSettlement.attempt_id) == col(Attempt.attempt_id))
        .where(
            *attempts.begun(None, start, end),
            col(Attempt.outcome).in_([Outcome.STARTED, Outcome.INDETERMINATE]),
        )
    )
    summed = _both_ways(rows, cost=lambda row: func.sum(row.cost_usd))
    return [Settled(_place(row), Decimal(row.cost)) for row in await tx.execute(summed)]


@dataclass(frozen=True, slots=True)
class Paid:
    """Payments through Stripe: how many, and what they came to. They are of no model ('')."""

    place: Place
    payments: int
    cents: int


async def paid(tx: Transaction, start: datetime, end: datetime) -> list[Paid]:
    """Return sums of the invoices that were paid in [start, end), with money and at Stripe."""
    without_money = exists().where(
        col(Notice.customer_id) == col(Invoice.customer_id),
        col(Notice.kind) == WITHOUT_MONEY,
        col(Notice.facts)["invoice_id"].astext == col(Invoice.stripe_invoice_id),  # pyright: ignore[reportIndexIssue]
    )
    rows = select(
        col(Invoice.customer_id),
        _day(col(Invoice.paid_at)),
        literal_column("''", Text).label("model"),
        col(Invoice.amount_paid_cents),
    ).where(
        col(Invoice.status) == "paid",
        col(Invoice.paid_at) >= start,
        col(Invoice.paid_at) < end,
        col(Invoice.amount_paid_cents) > 0,
        ~without_money,
    )
    summed = _both_ways(
        rows, payments=lambda row: func.count(), cents=lambda row: func.sum(row.amount_paid_cents)
    )
    return [Paid(_place(row), row.payments, int(row.cents)) for row in await tx.execute(summed)]


@dataclass(frozen=True, slots=True)
class Reported:
    """What Anthropic's cost report says of a model on a day, after discounts."""

    day: date
    model: str
    amount_usd: Decimal


async def reported(tx: Transaction, first: date, end: date) -> list[Reported]:
    """Return what the cost report said last of the days [first, end), where it was read."""
    statement = (
        select(
            col(ProviderCost.day),
            col(ProviderCost.model),
            func.sum(col(ProviderCost.amount_usd)).label("amount"),
        )
        .where(col(ProviderCost.day) >= first, col(ProviderCost.day) < end)
        .group_by(col(ProviderCost.day), col(ProviderCost.model))
    )
    return [
        Reported(row.day, row.model, Decimal(row.amount)) for row in await tx.execute(statement)
    ]


# --- Sums both ways -------------------------------------------------------------------------------
def _both_ways(rows: Any, **sums: Callable[[Any], Any]) -> Any:
    """Return the sums of a query's rows by customer and, in other rows, by day and model."""
    of = rows.subquery().c
    groups = func.grouping_sets(tuple_(of.customer_id), tuple_(of.day, of.model))
    named = [make(of).label(name) for name, make in sums.items()]
    return select(of.customer_id, of.day, of.model, *named).group_by(groups)


def _place(row: Row[Any]) -> Place:
    return Place(row.customer_id, row.day, row.model)


def _day(at: Any) -> ColumnElement[date]:
    return func.date(func.timezone(literal_column("'UTC'"), at)).label("day")
