"""Paces that all processes keep together: one row each, which says when its next turn is free.

Whoever takes a turn moves the row on by the distance between two turns. The row's own lock puts
takers in line and PostgreSQL's clock tells the time to all of them, so turns lie that far apart
however many processes take them, and however their own clocks go. Nothing is saved up: after a
pause turns do not come in a burst.

Nothing here is worth keeping over a crash, so the table is unlogged: a turn waits for no disk, and
after a crash of PostgreSQL the first one simply begins anew.
"""

from datetime import datetime, timedelta

from sqlalchemy import Interval, extract, func, literal
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Field, SQLModel, col

from tallystick.ledger.database import Transaction
from tallystick.ledger.tables import instant


class Pace(SQLModel, table=True):
    """When the next turn of a pace is free."""

    __tablename__ = "paces"  # pyright: ignore[reportAssignmentType]
    __table_args__ = {"prefixes": ["UNLOGGED"]}

    pace: str = Field(primary_key=True)
    free_at: datetime = instant()


async def take_turn(tx: Transaction, pace: str, apart: timedelta) -> float:
    """Take the next free turn of a pace; returns the seconds until it comes, 0 where it is now.

    A turn that was taken is spent, also where nobody makes use of it. The row is locked until the
    transaction ends, which should therefore do nothing else (`Ledger.each`).
    """
    now, step = func.clock_timestamp(), literal(apart, Interval)
    statement = (
        insert(Pace)
        .values(pace=pace, free_at=now + step)
        .on_conflict_do_update(
            index_elements=[col(Pace.pace)],
            set_={"free_at": func.greatest(col(Pace.free_at), now) + step},
        )
        .returning(extract("epoch", col(Pace.free_at) - step - now))
    )
    return max(0.0, float((await tx.execute(statement)).scalar_one()))
