"""The tables of message batches: what a job asks for, how it is cut up, and what came of each item.

A job is submitted once and can be a million items, so what is asked is written once and never moved
again. How far it has come is told by rows beside it: a *shard* is one batch at the provider, a
*try* puts an item into a shard under the attempt that was committed for it, a *result* is the last
word on an item. One shard is one create. A create that nobody knows the outcome of is never sent
again under the same shard; its items go into another one, whose `custom_id`s differ, so that both
batches could be told apart if both turned up.
"""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from sqlalchemy import Index, Numeric, Text, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from tallystick.ledger.tables import NOW, count, document, instant


class ShardState(StrEnum):
    """How far a shard has come."""

    PLANNED = "planned"
    """Committed with its attempts; nothing is sent."""
    SENT = "sent"
    """Committed before the create; without an answer nobody knows whether there is a batch."""
    RUNNING = "running"
    """The provider has it."""
    ENDED = "ended"
    """The provider is done with it; its results are being read."""
    SETTLED = "settled"
    """Every result is read, and the counts agree."""
    REFUSED = "refused"
    """The provider refused it as a whole; its items are errored."""
    LOST = "lost"
    """Looked for in vain; its items are in another shard. If its batch turns up all the same, it is
    cancelled and settled like any other."""
    DROPPED = "dropped"
    """The job was cancelled before it was sent."""


UNFINISHED_SHARDS = "state IN ('planned', 'sent', 'running', 'ended')"
"""Shards that something is still to be done about, as the condition of a partial index."""


UNEMPTIED_JOBS = "finished_at IS NOT NULL AND results_gone_at IS NULL"
"""Jobs that have ended and whose results still say what was said, likewise."""


class ItemOutcome(StrEnum):
    """The last word on an item."""

    SUCCEEDED = "succeeded"
    ERRORED = "errored"
    CANCELED = "canceled"
    EXPIRED = "expired"


class BatchJob(SQLModel, table=True):
    """One submitted job. Committed together with its items.

    `fingerprint` is of all of them, in their order. `highest_cost_usd` is the most that they can
    cost at the provider's batch price, `max_cost_usd` the most that they may be charged.
    """

    __tablename__ = "batch_jobs"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        Index("ix_batch_jobs_customer", "customer_id", "created_at"),
        Index("ix_batch_jobs_results", "finished_at", postgresql_where=text(UNEMPTIED_JOBS)),
    )

    job_id: str = Field(primary_key=True)
    customer_id: str = Field(foreign_key="customers.customer_id")
    fingerprint: str
    items: int
    body_bytes: int = count()
    estimated_input_tokens: int = count()
    highest_cost_usd: Decimal = Field(sa_type=Numeric)
    max_cost_usd: Decimal | None = Field(default=None, sa_type=Numeric)
    caller_metadata: dict[str, str] | None = document(default=None)
    created_at: datetime = instant(sa_column_kwargs=NOW)
    admitted_at: datetime | None = instant(default=None)
    highest_charge_nano_usd: int | None = count(default=None)
    """The most that it may be charged, by the terms it was admitted under."""
    cancelled_at: datetime | None = instant(default=None)
    """When somebody asked for it to be cancelled."""
    finished_at: datetime | None = instant(default=None)
    results_gone_at: datetime | None = instant(default=None)
    """When what was said was taken from its results (`ledger.batch_results`)."""


class BatchItem(SQLModel, table=True):
    """One request of a job. `number` counts from 0; `document` is its name for people.

    `params` is the Messages API body as compact JSON, exactly as it is sent; it is taken away when
    the job is finished.
    """

    __tablename__ = "batch_items"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (UniqueConstraint("customer_id", "request_id"),)

    job_id: str = Field(primary_key=True, foreign_key="batch_jobs.job_id")
    number: int = Field(primary_key=True)
    customer_id: str
    request_id: str
    document: str | None = None
    fingerprint: str
    model: str
    params: str | None = Field(default=None, sa_type=Text)
    body_bytes: int
    estimated_input_tokens: int
    prompt_chars: int
    highest_cost_usd: Decimal = Field(sa_type=Numeric)


class BatchShard(SQLModel, table=True):
    """One batch at the provider, and how far its results are read.

    `lines_read` and `bytes_read` of the file are settled, in chunks, each a transaction under this
    row's lock. `tallied` counts what they said by type, to be compared with the provider's own
    `request_counts`; the outcomes count what is final of it. `chunks` numbers those that brought
    records.
    """

    __tablename__ = "batch_shards"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        Index("ix_batch_shards_unfinished", "job_id", postgresql_where=text(UNFINISHED_SHARDS)),
    )

    job_id: str = Field(primary_key=True, foreign_key="batch_jobs.job_id")
    shard: int = Field(primary_key=True)
    state: ShardState = Field(default=ShardState.PLANNED, sa_type=Text)
    items: int
    first_number: int
    last_number: int
    """All of its items are in this range; there may be others in it that are not."""
    planned_at: datetime = instant()
    sent_at: datetime | None = instant(default=None)
    lost_at: datetime | None = instant(default=None)
    """When it was given up and its items were put into another shard."""
    batch_id: str | None = Field(default=None, unique=True)
    not_ours: list[str] = document(default_factory=list)
    """Batches that were taken for this shard's and turned out to be somebody else's."""
    begun_at: datetime | None = instant(default=None)
    """When the provider made the batch."""
    expires_at: datetime | None = instant(default=None)
    ended_at: datetime | None = instant(default=None)
    request_counts: dict[str, int] | None = document(default=None)
    lines_read: int = 0
    bytes_read: int = count(default=0)
    chunks: int = 0
    tallied: dict[str, int] = document(default_factory=dict)
    succeeded: int = 0
    errored: int = 0
    expired: int = 0
    canceled: int = 0
    cost_usd: Decimal = Field(default=Decimal(0), sa_type=Numeric)
    charge_nano_usd: int = count(default=0)
    saved_nano_usd: int = count(default=0)
    """What the same usage would have been charged more outside a batch."""
    trouble: str | None = None


class BatchTry(SQLModel, table=True):
    """An item in a shard, and the attempt that its call is journalled in. Only ever added.

    `round` counts the tries that came to an answer, from 1; taking the place of one in a lost
    shard is no new round.
    """

    __tablename__ = "batch_tries"  # pyright: ignore[reportAssignmentType]

    job_id: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    shard: int = Field(primary_key=True)
    round: int
    attempt_id: int = count(foreign_key="attempts.attempt_id", unique=True)


class BatchResult(SQLModel, table=True):
    """The last word on an item: the line of the provider's results as it came, if there was one.

    The line is taken away a while after the job has finished.
    """

    __tablename__ = "batch_results"  # pyright: ignore[reportAssignmentType]

    job_id: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    outcome: ItemOutcome = Field(sa_type=Text)
    attempt_id: int | None = count(default=None)
    """The try that it came from; None for an item that was never sent."""
    error_type: str | None = None
    error_message: str | None = None
    metered_as: str | None = None
    """The request id of the meter events that tell its charge, among those of its chunk."""
    line: str | None = Field(default=None, sa_type=Text)
