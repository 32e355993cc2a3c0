"""The operators' journal: what was retried, corrected, skipped, read or erased, by whom and why.

A row is committed together with what it tells where that is in the ledger, so neither is there
without the other. What only Temporal can do is entered before it is asked for, so that nothing is
done that nobody entered; where asking fails, a second row says so.
"""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from tallystick.ledger.database import Transaction, entity
from tallystick.ledger.operator_tables import OperatorAction

Action = Literal["retry", "correct", "skip", "read", "erase"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What an operator has decided about a thing that waits or is kept; a skip has a reason."""

    by: str
    action: Action
    subject: str
    customer_id: str | None
    reason: str | None
    at: datetime


async def enter(tx: Transaction, decision: Decision, outcome: str) -> None:
    """Enter a decision and what came of it."""
    await tx.execute(insert(OperatorAction).values(**asdict(decision), outcome=outcome))


async def newest(
    tx: Transaction, limit: int, *, customer_id: str | None = None
) -> list[OperatorAction]:
    """Return what was done last, to things of this customer or of all, the newest first."""
    statement = select(OperatorAction).order_by(col(OperatorAction.operator_action_id).desc())
    if customer_id is not None:
        statement = statement.where(col(OperatorAction.customer_id) == customer_id)
    return [entity(OperatorAction, row) for row in await tx.execute(statement.limit(limit))]
