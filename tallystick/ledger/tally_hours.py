"""What each record says of an hour, side by side: what the plots of reconciliation draw.

Each comparison knows two sides of the four and puts those; it leaves what others have put. A look
that is repeated puts the same again, so there is nothing to be undone.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from tallystick.ledger.database import Transaction, entity
from tallystick.ledger.reconciliation_tables import TallyHour

Side = Literal["claude", "ledger", "outbox", "stripe"]


AT_ONCE = 1_000
"""Rows in one statement."""


async def put(tx: Transaction, side: Side, sums: Sequence[tuple[datetime, str, int]]) -> None:
    """Note what one record says of hours; what the others say stays.

    Args:
        tx: the transaction.
        side: which record: Anthropic's report (`claude`); usage records and settled attempts
            (`ledger`); what Stripe is to be told (`outbox`); what it counts (`stripe`).
        sums: the beginning of an hour, a unit (a token kind, or `charge_nano_usd`) and what the
            record says of them; each pair once.
    """
    for start in range(0, len(sums), AT_ONCE):
        rows = [
            {"hour": hour, "unit": unit, side: value}
            for hour, unit, value in sums[start : start + AT_ONCE]
        ]
        statement = insert(TallyHour).values(rows)
        await tx.execute(
            statement.on_conflict_do_update(
                index_elements=["hour", "unit"], set_={side: statement.excluded[side]}
            )
        )


async def between(tx: Transaction, start: datetime, end: datetime) -> list[TallyHour]:
    """Return what is known of the hours that begin in [start, end)."""
    statement = select(TallyHour).where(col(TallyHour.hour) >= start, col(TallyHour.hour) < end)
    return [entity(TallyHour, row) for row in await tx.execute(statement)]
