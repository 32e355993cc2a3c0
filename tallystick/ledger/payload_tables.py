"""The table of large payloads: what is kept here instead of in a workflow's history.

A row is one part of one payload, as it was encoded, hence encrypted where keys are set. Whose it is
stands first in the key: a payload is stored for one workflow and goes when Temporal has forgotten
that workflow (`ledger.payloads`), whoever else may have stored the same bytes.
"""

from datetime import datetime

from sqlalchemy import LargeBinary
from sqlmodel import Field, SQLModel

from tallystick.ledger.tables import NOW, instant


class PayloadRow(SQLModel, table=True):
    """One part of a payload, named by the digest of the whole, counted from 0."""

    __tablename__ = "payloads"  # pyright: ignore[reportAssignmentType]

    workflow_id: str = Field(primary_key=True)
    """Empty where it belongs to no workflow: to an activity that was started by itself."""
    digest: str = Field(primary_key=True)
    part: int = Field(primary_key=True)
    content: bytes = Field(sa_type=LargeBinary)
    needed_at: datetime = instant(sa_column_kwargs=NOW, index=True)
    """When somebody last stored it, or its workflow was last seen to be there."""
