"""The ledger's tables: what was called, what it cost, and what Stripe was told.

Terms and invariants are in this folder's README. Three of them live in the schema itself, so that
no code path can break them: one usage record per request (unique key), one meter event per record
and meter (unique key), and usage records that cannot be changed or removed (triggers, made in the
first migration). Money is NUMERIC; charges and metered values are whole nano-USD or counts in
BIGINT.
"""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, DateTime, Index, Numeric, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from tallystick.metering import CHARGE_METER


def instant(**options: Any) -> Any:
    """Declare a column of instants, always with their offset."""
    return Field(sa_type=DateTime(timezone=True), **options)  # pyright: ignore[reportArgumentType]


def document(**options: Any) -> Any:
    """Declare a column of JSON."""
    # Without a value it is SQL NULL, not a JSON null that only looks like one.
    return Field(sa_type=JSONB(none_as_null=True), **options)  # pyright: ignore[reportArgumentType, reportCallIssue]


def count(**options: Any) -> Any:
    """Declare a column of whole numbers: counts, ids, nano-USD, cents."""
    return Field(sa_type=BigInteger, **options)


NOW = {"server_default": text("now()")}


class CustomerStatus(StrEnum):
    """Whether a customer may spend."""

    ACTIVE = "active"
    SUSPENDED = "suspended"


class Outcome(StrEnum):
    """How one provider call ended."""

    STARTED = "started"
    """Committed before the call; if the worker died, the next attempt makes it indeterminate."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """The provider answered with an error; HTTP errors carry no usage."""
    INDETERMINATE = "indeterminate"
    """Nobody knows whether the provider served it; reconciliation settles the cost."""


OPEN_ATTEMPTS = "outcome IN ('started', 'indeterminate')"
"""Attempts whose cost is not known yet, as the condition of a partial index."""
LOST_ATTEMPTS = "outcome IN ('failed', 'indeterminate')"
"""Attempts that have ended without an answer, likewise."""
CHARGES = f"meter = '{CHARGE_METER}'"
"""Meter events that carry money, likewise."""


class Plan(SQLModel, table=True):
    """Billing terms under a name, in force from an instant until the plan's next row."""

    __tablename__ = "plans"  # pyright: ignore[reportAssignmentType]

    plan: str = Field(primary_key=True)
    valid_from: datetime = instant(primary_key=True)
    terms: dict[str, Any] = document()


class Customer(SQLModel, table=True):
    """One customer of the application: whom to bill, on which plan."""

    __tablename__ = "customers"  # pyright: ignore[reportAssignmentType]

    customer_id: str = Field(primary_key=True)
    name: str
    plan: str
    stripe_customer_id: str | None = Field(default=None, unique=True)
    status: CustomerStatus = Field(default=CustomerStatus.ACTIVE, sa_type=Text)
    status_reason: str | None = None
    suspended_by: str | None = None
    """`payment`, `operator` or `ended`, of which each is harder to lift (`ledger.customers`)."""
    time_zone: str = "UTC"
    spend_cap_usd: Decimal | None = Field(default=None, sa_type=Numeric)
    """The most that may be charged in a calendar month of the customer's; None is no cap."""
    created_at: datetime = instant(sa_column_kwargs=NOW)


class CustomerTermsRow(SQLModel, table=True):
    """What one customer has negotiated, in force from an instant until its next row.

    A row says all that differs from the plan from then on; an empty one goes back to the plan.
    """

    __tablename__ = "customer_terms"  # pyright: ignore[reportAssignmentType]

    customer_id: str = Field(primary_key=True, foreign_key="customers.customer_id")
    valid_from: datetime = instant(primary_key=True)
    terms: dict[str, Any] = document()


class Reservation(SQLModel, table=True):
    """Room kept free for one request in flight: the most it may be charged.

    Working state and no record: the row is there while the request is, and its usage record takes
    its place.
    """

    __tablename__ = "reservations"  # pyright: ignore[reportAssignmentType]

    customer_id: str = Field(primary_key=True)
    request_id: str = Field(primary_key=True)
    conversation_id: str | None = None
    amount_nano_usd: int = count()
    reserved_at: datetime = instant()


class Attempt(SQLModel, table=True):
    """One provider call: committed before it is made, completed after it.

    `reply` is kept only from the moment Claude answered until the usage record is committed, so
    that a crash in between costs no second call.
    """

    __tablename__ = "attempts"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        UniqueConstraint("customer_id", "request_id", "number"),
        # Rows come nearly in this order, so a small index finds the pages of an hour.
        Index("ix_attempts_started", "started_at", postgresql_using="brin"),
        Index("ix_attempts_open", "started_at", postgresql_where=text(OPEN_ATTEMPTS)),
        Index(
            "ix_attempts_lost", "customer_id", "started_at", postgresql_where=text(LOST_ATTEMPTS)
        ),
    )

    attempt_id: int | None = count(default=None, primary_key=True)
    customer_id: str
    request_id: str
    number: int
    fingerprint: str
    model: str
    conversation_id: str | None = None
    estimated_input_tokens: int
    prompt_chars: int
    outcome: Outcome = Field(default=Outcome.STARTED, sa_type=Text)
    started_at: datetime = instant()
    finished_at: datetime | None = instant(default=None)
    error_type: str | None = None
    error_message: str | None = None
    claude_request_id: str | None = Field(default=None, index=True)
    message_id: str | None = Field(default=None, index=True)
    usage: dict[str, Any] | None = document(default=None)
    reply: dict[str, Any] | None = document(default=None)


class UsageRecord(SQLModel, table=True):
    """What one answered request used and cost. Written once, never changed.

    `evidence` is the reply without its text: all that rating looked at, so that a price can be
    worked out again from the row alone. Token columns repeat the counts for sums and searches.
    """

    __tablename__ = "usage_records"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        UniqueConstraint("customer_id", "request_id"),
        # With the charge in the index, what a customer has spent is read without touching rows.
        Index(
            "ix_usage_records_customer_served",
            "customer_id",
            "served_at",
            postgresql_include=["charge_nano_usd"],
        ),
        Index("ix_usage_records_customer_billed", "customer_id", "billed_at"),
    )

    usage_record_id: int | None = count(default=None, primary_key=True)
    customer_id: str
    request_id: str
    attempt_id: int = count(foreign_key="attempts.attempt_id", unique=True)
    attempts: int
    fingerprint: str
    conversation_id: str | None = Field(default=None, index=True)
    served_at: datetime = instant(index=True)
    billed_at: datetime = instant()
    """In which period it is billed: when it was served, or when the open period began if it was
    recorded after its own was closed (`account_tables`)."""
    recorded_at: datetime = instant(sa_column_kwargs=NOW)
    model: str
    message_id: str | None = Field(default=None, index=True)
    claude_request_id: str | None = None
    stop_reason: str | None = None
    partial: bool
    prompt_chars: int
    response_chars: int
    input_tokens: int = count()
    output_tokens: int = count()
    cache_write_5m_tokens: int = count()
    cache_write_1h_tokens: int = count()
    cache_read_tokens: int = count()
    web_searches: int = count()
    evidence: dict[str, Any] = document()
    status: str
    reason: str
    price_book: str
    plan: str
    plan_valid_from: datetime = instant()
    customer_terms_from: datetime | None = instant(default=None)
    cost_usd: Decimal | None = Field(sa_type=Numeric)
    charge_nano_usd: int | None = count()
    lines: list[dict[str, Any]] = document()
    explanation: str
    warnings: list[str] = document()
    caller_metadata: dict[str, str] | None = document()


class Adjustment(SQLModel, table=True):
    """A correction of a usage record: differences to add to its numbers. Only ever added.

    What holds is the record plus all its adjustments (`ledger.effective`). To a record without a
    price the first adjustment brings the whole price. `status` and `lines` are those of the
    corrected record.
    """

    __tablename__ = "adjustments"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        UniqueConstraint("usage_record_id", "price_book"),
        Index("ix_adjustments_customer_billed", "customer_id", "billed_at"),
    )

    adjustment_id: int | None = count(default=None, primary_key=True)
    usage_record_id: int = count(foreign_key="usage_records.usage_record_id")
    created_at: datetime = instant(sa_column_kwargs=NOW, index=True)
    customer_id: str
    billed_at: datetime = instant()
    """In which period the difference is billed: always the open one."""
    price_book: str
    reason: str
    status: str
    cost_usd: Decimal = Field(sa_type=Numeric)
    charge_nano_usd: int = count()
    input_tokens: int = count()
    output_tokens: int = count()
    cache_write_5m_tokens: int = count()
    cache_write_1h_tokens: int = count()
    cache_read_tokens: int = count()
    web_searches: int = count()
    lines: list[dict[str, Any]] = document()


class MeterEvent(SQLModel, table=True):
    """One event of the metering outbox: what Stripe is to be told, and how far that has come.

    Committed with its usage record, or with the records of a batch whose sum it tells; then it has
    no `usage_record_id`. `first_sent_at` is committed before the first send, because Stripe forgets
    identifiers after a day and only this instant tells whether a resend is safe.
    """

    __tablename__ = "meter_events"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        UniqueConstraint("usage_record_id", "meter"),
        Index("ix_meter_events_request", "customer_id", "request_id"),
        Index(
            "ix_meter_events_waiting",
            "occurred_at",
            postgresql_where=text("delivered_at IS NULL"),
        ),
        Index("ix_meter_events_window", "stripe_customer_id", "meter", "occurred_at"),
        # Rows come nearly in this order, so a small index finds the pages of a day.
        Index("ix_meter_events_occurred", "occurred_at", postgresql_using="brin"),
        Index(
            "ix_meter_events_charges",
            "customer_id",
            "occurred_at",
            postgresql_where=text(CHARGES),
        ),
        Index(
            "ix_meter_events_withdrawn",
            "customer_id",
            "occurred_at",
            postgresql_where=text("withdrawn_at IS NOT NULL"),
        ),
    )

    meter_event_id: int | None = count(default=None, primary_key=True)
    usage_record_id: int | None = count(default=None, foreign_key="usage_records.usage_record_id")
    customer_id: str
    request_id: str
    identifier: str = Field(unique=True)
    meter: str
    value: int = count()
    occurred_at: datetime = instant()
    billed_at: datetime = instant()
    """In which period its charge is billed: that of its records or, where a record had no price,
    of the adjustment that brought the first one."""
    stripe_customer_id: str | None = None
    first_sent_at: datetime | None = instant(default=None)
    delivered_at: datetime | None = instant(default=None)
    parked_at: datetime | None = instant(default=None)
    parked_reason: str | None = None
    withdrawn_at: datetime | None = instant(default=None)
    """Never sent and never to be: a statement collects its amount on a line of its own instead."""
