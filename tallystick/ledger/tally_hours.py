"""What each record says of an hour, side by side: what the plots of reconciliation draw.

Each comparison knows two sides of the four and puts those; it leaves what others have put. A look
that is repeated puts the same again, so there is nothing to be undone.
"""

from datetime import datetime
from typing import Literal

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from tallystick.ledger.database import Transaction, entity
from tallystick.ledger.reconciliation_tables import TallyHour

Side = Literal["claude", "ledger", "outbox", "stripe"]


async def put(
    tx: Transaction,
    hour: datetime,
    unit: str,
    *,
    claude: int | None = None,
    ledger: int | None = None,
    outbox: int | None = None,
    stripe: int | None = None,
) -> None:
    """Note what records say of the hour that begins then; sides that are not given stay.

    Args:
        tx: the transaction.
        hour: a whole hour.
        unit: a token kind, or `charge_nano_usd`.
        claude: what Anthropic's report says.
        ledger: what usage records and settled attempts say.
        outbox: what Stripe is to be told.
        stripe: what Stripe counts.
    """
    sides: dict[Side, int | None] = {
        "claude": claude,
        "ledger": ledger,
        "outbox": outbox,
        "stripe": stripe,
    }
    given = {side: value for side, value in sides.items() if value is not None}
    statement = insert(TallyHour).values(hour=hour, unit=unit, **given)
    await tx.execute(
        statement.on_conflict_do_update(index_elements=["hour", "unit"], set_=given)
        if given
        else statement.on_conflict_do_nothing()
    )


async def between(tx: Transaction, start: datetime, end: datetime) -> list[TallyHour]:
    """Return what is known of the hours that begin in [start, end)."""
    statement = select(TallyHour).where(col(TallyHour.hour) >= start, col(TallyHour.hour) < end)
    return [entity(TallyHour, row) for row in await tx.execute(statement)]
