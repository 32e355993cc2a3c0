"""The tables of what was said: for which customers it is kept and how long, and what is kept.

Kept by nobody unless a customer's row says so. The content of a request has a row of its own, so
that usage records, which are kept for good, never hold any of it, and removing it touches nothing
that is billed. Its foreign key says that there is none without its usage record.
"""

from datetime import datetime

from sqlalchemy import ForeignKeyConstraint, Text
from sqlmodel import Field, SQLModel

from tallystick.ledger.tables import instant


class ContentTerms(SQLModel, table=True):
    """How long the content of a customer's requests is kept, from an instant until its next row.

    `days` None is not at all. A row that `erases` has removed all that was kept until then. Only
    ever added.
    """

    __tablename__ = "content_terms"  # pyright: ignore[reportAssignmentType]

    customer_id: str = Field(primary_key=True, foreign_key="customers.customer_id")
    valid_from: datetime = instant(primary_key=True)
    days: int | None = None
    erases: bool


class RequestContent(SQLModel, table=True):
    """What was asked and answered, until `goes_at`; sealed where keys are set.

    `params` is the Messages API body as compact JSON, `reply` the reply or, of a batch, the
    provider's line that has it. PostgreSQL keeps both beside the row when they are long, so
    whoever looks for rows that go reads none of them.
    """

    __tablename__ = "request_contents"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        ForeignKeyConstraint(
            ["customer_id", "request_id"],
            ["usage_records.customer_id", "usage_records.request_id"],
        ),
    )

    customer_id: str = Field(primary_key=True)
    request_id: str = Field(primary_key=True)
    params: str = Field(sa_type=Text)
    reply: str = Field(sa_type=Text)
    goes_at: datetime = instant(index=True)
