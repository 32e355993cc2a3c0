"""The table of what operators have done about things that waited or were kept. Only ever added."""

from datetime import datetime

from sqlalchemy import Index
from sqlmodel import SQLModel

from tallystick.ledger.tables import count, instant


class OperatorAction(SQLModel, table=True):
    """One thing that an operator did: who did it, to what, why, and what came of it.

    `subject` is a name as `tallystick.subjects` makes them. A skip always has a reason.
    """

    __tablename__ = "operator_actions"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (Index("ix_operator_actions_customer", "customer_id"),)

    operator_action_id: int | None = count(default=None, primary_key=True)
    at: datetime = instant()
    by: str
    action: str
    """`retry`, `correct` or `skip`; `read` or `erase`, of content."""
    subject: str
    customer_id: str | None = None
    reason: str | None = None
    outcome: str
