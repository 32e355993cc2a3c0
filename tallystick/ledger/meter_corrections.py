"""Events that only correct what Stripe has counted: no usage, and in no sum of the outbox.

Like an event of the outbox, one is written before it is sent, with the instant of its first send,
so that whoever finds it after a crash knows how long Stripe may have known its identifier.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from tallystick.ledger.database import Transaction, entity
from tallystick.ledger.reconciliation_tables import MeterCorrection


async def find(tx: Transaction, identifier: str) -> MeterCorrection | None:
    """Return the correction of that identifier, if there is one."""
    statement = select(MeterCorrection).where(col(MeterCorrection.identifier) == identifier)
    row = (await tx.execute(statement)).one_or_none()
    return entity(MeterCorrection, row) if row else None


async def prepare(
    tx: Transaction, identifier: str, *, at: datetime, **columns: Any
) -> MeterCorrection:
    """Write the correction if it is new, and that it is sent at `at` at the latest.

    To be committed before the send. Of one that is there nothing changes.
    """
    await tx.execute(
        insert(MeterCorrection)
        .values(identifier=identifier, first_sent_at=at, **columns)
        .on_conflict_do_nothing(index_elements=["identifier"])
    )
    written = await find(tx, identifier)
    assert written is not None  # noqa: S101 - written above
    return written


async def mark_delivered(tx: Transaction, identifier: str, at: datetime) -> None:
    """Note that Stripe has acknowledged it."""
    await tx.execute(
        update(MeterCorrection)
        .where(col(MeterCorrection.identifier) == identifier)
        .values(delivered_at=func.coalesce(col(MeterCorrection.delivered_at), at))
    )
