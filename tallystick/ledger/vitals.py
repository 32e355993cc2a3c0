"""How the ledger is doing as a whole, for monitors that ask every few seconds.

Each figure is one statement on a partial index of what is unfinished, so that it costs what is
waiting and not what was ever done. They need not be of one moment.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, exists, func, select, text
from sqlmodel import col

from tallystick.ledger import inbox
from tallystick.ledger.database import Transaction
from tallystick.ledger.inbox import Depth
from tallystick.ledger.reconciliation_tables import (
    UNSETTLED,
    AttemptSettlement,
    Discrepancy,
    DiscrepancyState,
)
from tallystick.ledger.tables import OPEN_ATTEMPTS, Attempt, MeterEvent, Outcome


@dataclass(frozen=True, slots=True)
class Vitals:
    """What waits: `unmetered` for Stripe, parked or not, since when the oldest has, and so on."""

    unmetered: int
    parked: int
    oldest_unmetered_at: datetime | None
    inbox: Depth
    discrepancies: Mapping[DiscrepancyState, int]
    """Unsettled ones: open, or repaired and not yet seen to agree."""
    unknown_attempts: int
    """Calls of unknown outcome which no report has settled."""


async def read(tx: Transaction) -> Vitals:
    """Return the figures of this moment."""
    waiting = await _unmetered(tx)
    return Vitals(
        unmetered=waiting.events,
        parked=waiting.parked,
        oldest_unmetered_at=waiting.oldest,
        inbox=await inbox.depth(tx),
        discrepancies=await _discrepancies(tx),
        unknown_attempts=await _unknown_attempts(tx),
    )


async def answers(tx: Transaction) -> None:
    """Do nothing but hear from PostgreSQL.

    Raises:
        LedgerUnavailableError: when it is away.
    """
    await tx.execute(select(1))


async def _unmetered(tx: Transaction) -> Any:
    oldest: ColumnElement[Any] = func.min(col(MeterEvent.occurred_at))
    parked = func.count().filter(col(MeterEvent.parked_at).is_not(None))
    statement = select(
        func.count().label("events"), parked.label("parked"), oldest.label("oldest")
    ).where(col(MeterEvent.delivered_at).is_(None), col(MeterEvent.withdrawn_at).is_(None))
    return (await tx.execute(statement)).one()


async def _discrepancies(tx: Transaction) -> Mapping[DiscrepancyState, int]:
    statement = (
        select(col(Discrepancy.state), func.count())
        .where(text(UNSETTLED))
        .group_by(col(Discrepancy.state))
    )
    none = dict.fromkeys((DiscrepancyState.OPEN, DiscrepancyState.REPAIRED), 0)
    return none | {DiscrepancyState(state): n for state, n in await tx.execute(statement)}


async def _unknown_attempts(tx: Transaction) -> int:
    statement = (
        select(func.count())
        .select_from(Attempt)
        .where(
            text(OPEN_ATTEMPTS),
            col(Attempt.outcome) == Outcome.INDETERMINATE,
            ~exists().where(col(AttemptSettlement.attempt_id) == col(Attempt.attempt_id)),
        )
    )
    return (await tx.execute(statement)).scalar_one()
