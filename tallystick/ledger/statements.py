"""Statements: written once each, and what the next one takes over from the last.

A statement and its lines are one transaction under the unique key (customer, ordinal): whoever
settles a period a second time, after whatever crash, finds the first statement and changes nothing.
Each begins where the last one ended, which is why the statements of a customer together are the
ledger: no instant is in none of them and none in two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from tallystick.ledger import account_tables as tables
from tallystick.ledger.account_tables import Grant, StatementLine, WalletEntry
from tallystick.ledger.billed import Window
from tallystick.ledger.database import Transaction
from tallystick.money import from_nano_usd, to_nano_usd, total
from tallystick.plans.statement import Movement, Statement, WalletUse


@dataclass(frozen=True, slots=True)
class Stored:
    """A statement in the ledger. Its lines are named by `statement_id` and their number."""

    statement_id: int
    created_at: datetime
    statement: Statement


async def add(tx: Transaction, statement: Statement) -> Stored:
    """Write a statement and its lines; where the period has one already, that one is returned."""
    row = (
        await tx.execute(
            insert(tables.Statement)
            .values(
                customer_id=statement.customer_id,
                ordinal=statement.ordinal,
                period_start=statement.period_start,
                period_end=statement.period_end,
                plan=statement.plan,
                usage_nano_usd=to_nano_usd(statement.usage_usd),
                due_nano_usd=to_nano_usd(statement.due_usd),
                due_cents=statement.due_cents,
                document=statement.model_dump(mode="json"),
            )
            .on_conflict_do_nothing(index_elements=["customer_id", "ordinal"])
            .returning(col(tables.Statement.statement_id))
        )
    ).one_or_none()
    if row is not None and statement.lines:
        await tx.execute(
            insert(StatementLine),
            [
                {
                    "statement_id": row.statement_id,
                    "number": line.number,
                    "kind": line.kind,
                    "collected_by": line.collected_by,
                    "description": line.description,
                    "amount_nano_usd": to_nano_usd(line.amount_usd),
                    "amount_cents": line.amount_cents,
                }
                for line in statement.lines
            ],
        )
    stored = await get(tx, statement.customer_id, statement.ordinal)
    assert stored is not None  # noqa: S101 - statements are never removed
    return stored


# --- Reading --------------------------------------------------------------------------------------
_STORED = select(
    col(tables.Statement.statement_id),
    col(tables.Statement.created_at),
    col(tables.Statement.document),
)
_NEWEST_FIRST = col(tables.Statement.ordinal).desc()


async def get(tx: Transaction, customer_id: str, ordinal: int) -> Stored | None:
    """Return the statement of a period, or None before it is settled."""
    statement = _STORED.where(
        col(tables.Statement.customer_id) == customer_id,
        col(tables.Statement.ordinal) == ordinal,
    )
    row = (await tx.execute(statement)).one_or_none()
    return _stored(row) if row else None


async def list_all(tx: Transaction, customer_id: str) -> Sequence[Stored]:
    """Return all statements of a customer, oldest first."""
    statement = _STORED.where(col(tables.Statement.customer_id) == customer_id).order_by(
        col(tables.Statement.ordinal)
    )
    return [_stored(row) for row in await tx.execute(statement)]


async def latest(tx: Transaction, customer_id: str, *, before: int | None = None) -> Stored | None:
    """Return the customer's latest statement, or the latest of a lower number than `before`."""
    statement = _STORED.where(col(tables.Statement.customer_id) == customer_id)
    if before is not None:
        statement = statement.where(col(tables.Statement.ordinal) < before)
    row = (await tx.execute(statement.order_by(_NEWEST_FIRST).limit(1))).one_or_none()
    return _stored(row) if row else None


def _stored(row: Any) -> Stored:
    return Stored(row.statement_id, row.created_at, Statement.model_validate(row.document))


# --- The wallet in a period -----------------------------------------------------------------------
async def wallet_use(tx: Transaction, window: Window, opening_usd: Decimal) -> WalletUse:
    """Return what moved in a wallet in a window, from its balance at the opening.

    Movements are dated as usage is billed, so those of a closed period never change either, and
    the balance that one statement closes with is the one that the next opens with.
    """
    amount = func.sum(col(WalletEntry.amount_nano_usd))
    of_grant: list[Any] = [col(Grant.source).label("grant"), col(Grant.kind).label("grant_kind")]
    by = [col(WalletEntry.kind), *of_grant]
    statement = (
        select(
            *by,
            func.count().label("movements"),
            func.min(col(WalletEntry.occurred_at)).label("first_at"),
            func.max(col(WalletEntry.occurred_at)).label("last_at"),
            amount.label("amount"),
        )
        .outerjoin(Grant, col(Grant.grant_id) == col(WalletEntry.grant_id))
        .where(
            col(WalletEntry.customer_id) == window.customer_id,
            col(WalletEntry.occurred_at) < window.end,
        )
        .group_by(*by)
        .order_by(func.min(col(WalletEntry.wallet_entry_id)))
    )
    if window.since is not None:
        statement = statement.where(col(WalletEntry.occurred_at) >= window.since)
    movements = tuple(
        Movement(
            kind=row.kind,
            grant=row.grant,
            grant_kind=row.grant_kind,
            count=row.movements,
            first_at=row.first_at,
            last_at=row.last_at,
            amount_usd=from_nano_usd(int(row.amount)),
        )
        for row in await tx.execute(statement)
    )
    return WalletUse(
        opening_usd=opening_usd,
        movements=movements,
        closing_usd=total([opening_usd, *(each.amount_usd for each in movements)]),
    )
