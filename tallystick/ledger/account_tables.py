"""The tables of an account: its periods, its plan over time, its wallet, its statements, its debts.

Three kinds of row. **Records** are only ever added, and triggers keep them so: plan moves, grants,
wallet entries, statements and their lines, alerts. **Projections** repeat what Stripe knows, so
that a question can be answered without asking it: invoices. **Working state** says how far
something has come: accounts, top-ups, notices, Stripe's events.

One column carries the books: `billed_at` of usage records and adjustments. It is the later of the
instant of use and the end of the account's last closed period, set under a lock that closing takes
too. A period once closed therefore never changes, each record is in exactly one period, and late
usage is found in the next one.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Index, Text, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from tallystick.ledger.tables import NOW, count, document, instant


class BillingAccount(SQLModel, table=True):
    """The account of one customer: from when its periods are counted, and how far it is closed.

    `anchor` is the instant the first period began; boundaries are monthly from it, in `time_zone`.
    Where Stripe runs a subscription the zone is UTC, since Stripe counts its periods so.
    """

    __tablename__ = "billing_accounts"  # pyright: ignore[reportAssignmentType]

    customer_id: str = Field(primary_key=True, foreign_key="customers.customer_id")
    anchor: datetime = instant()
    time_zone: str
    closed_until: datetime = instant()
    """The end of the last closed period, the anchor before there is one. Only moves forward."""
    invoiced_until: datetime = instant()
    """The end of the last period whose invoice is final; usage of before that, told to Stripe
    late, appears on no Stripe invoice by itself."""
    stripe_subscription_id: str | None = Field(default=None, unique=True)
    aligned_plan: str | None = None
    """The plan that Stripe is set up for from the next boundary on; another one has to follow."""
    opened_at: datetime = instant()
    cancel_at: datetime | None = instant(default=None)
    """When the account ends, known in advance; its last period ends then."""
    ended_at: datetime | None = instant(default=None)


class PlanMove(SQLModel, table=True):
    """From an instant on the customer is on another plan; before its first move on the one in
    `customers`. Of the moves that have taken effect the latest decision holds, so deciding anew
    replaces one that is still to come."""

    __tablename__ = "plan_moves"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (Index("ix_plan_moves_customer", "customer_id", "valid_from"),)

    plan_move_id: int | None = count(default=None, primary_key=True)
    customer_id: str = Field(foreign_key="customers.customer_id")
    valid_from: datetime = instant()
    plan: str
    decided_at: datetime = instant(sa_column_kwargs=NOW)


class GrantKind(StrEnum):
    """Where credit came from."""

    PAID = "paid"
    PROMOTIONAL = "promotional"


class Grant(SQLModel, table=True):
    """Credit given to a prepaid customer: so much, burnt by priority, until it expires.

    `source` names what it was given for (`top-up:17`, `promotion:spring`); unique, so that the
    same payment can never be credited twice.
    """

    __tablename__ = "grants"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (UniqueConstraint("customer_id", "source"),)

    grant_id: int | None = count(default=None, primary_key=True)
    customer_id: str = Field(foreign_key="customers.customer_id")
    kind: GrantKind = Field(sa_type=Text)
    priority: int
    """The lowest is burnt first; among equals what expires first, then what was given first."""
    amount_nano_usd: int = count()
    source: str
    note: str | None = None
    granted_at: datetime = instant()
    expires_at: datetime | None = instant(default=None)


class EntryKind(StrEnum):
    """Why a balance moved."""

    GRANTED = "granted"
    USAGE = "usage"
    ADJUSTMENT = "adjustment"
    EXPIRED = "expired"
    OVERDRAFT_REPAID = "overdraft_repaid"
    REVOKED = "revoked"


class WalletEntry(SQLModel, table=True):
    """One movement of one grant, or of the overdraft (no grant); the balance is their sum.

    `remaining_nano_usd` is what the grant (or the overdraft, negative) stands at after it: a
    running total written under the account's lock, so the balance is read without adding up years.
    """

    __tablename__ = "wallet_entries"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        # One burn per record and grant, one correction per adjustment and grant.
        Index(
            "ux_wallet_entries_usage",
            "usage_record_id",
            "grant_id",
            unique=True,
            postgresql_nulls_not_distinct=True,
            postgresql_where=text("kind = 'usage'"),
        ),
        Index(
            "ux_wallet_entries_adjustment",
            "adjustment_id",
            "grant_id",
            unique=True,
            postgresql_nulls_not_distinct=True,
            postgresql_where=text("kind = 'adjustment'"),
        ),
        Index("ix_wallet_entries_grant", "customer_id", "grant_id", "wallet_entry_id"),
        Index("ix_wallet_entries_occurred", "customer_id", "occurred_at"),
    )

    wallet_entry_id: int | None = count(default=None, primary_key=True)
    customer_id: str = Field(foreign_key="customers.customer_id")
    grant_id: int | None = count(default=None, foreign_key="grants.grant_id")
    kind: EntryKind = Field(sa_type=Text)
    amount_nano_usd: int = count()
    remaining_nano_usd: int = count()
    usage_record_id: int | None = count(default=None, foreign_key="usage_records.usage_record_id")
    adjustment_id: int | None = count(default=None, foreign_key="adjustments.adjustment_id")
    occurred_at: datetime = instant()
    created_at: datetime = instant(sa_column_kwargs=NOW)


class Wallet(SQLModel, table=True):
    """What a wallet's entries come to, as far as it cannot be read from the last of them.

    Working state, written with every entry under the same lock: without it, the grants of years
    would have to be looked through for those that have something left.
    """

    __tablename__ = "wallets"  # pyright: ignore[reportAssignmentType]

    customer_id: str = Field(primary_key=True, foreign_key="customers.customer_id")
    open_grants: list[int] = Field(sa_type=ARRAY(BigInteger))  # pyright: ignore[reportArgumentType]
    """Those with something left."""
    last_grant_id: int = count(default=0)
    period_start: datetime | None = instant(default=None)
    """Of the latest period in which something was burnt."""
    burnt_nano_usd: int = count(default=0)
    """In that period, corrections included."""


class TopUp(SQLModel, table=True):
    """One purchase of credit: asked for, invoiced, then granted or given up.

    At most one is open per customer (a partial unique index), so a balance that crosses its
    threshold many times at once is topped up once.
    """

    __tablename__ = "top_ups"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        Index(
            "ux_top_ups_open",
            "customer_id",
            unique=True,
            postgresql_where=text("granted_at IS NULL AND failed_at IS NULL"),
        ),
    )

    top_up_id: int | None = count(default=None, primary_key=True)
    customer_id: str = Field(foreign_key="customers.customer_id")
    amount_nano_usd: int = count()
    """Whole cents."""
    automatic: bool
    requested_at: datetime = instant()
    stripe_invoice_id: str | None = None
    granted_at: datetime | None = instant(default=None)
    failed_at: datetime | None = instant(default=None)
    failure: str | None = None


class Statement(SQLModel, table=True):
    """What one period came to. Written once; a correction is a line of a later one.

    `ordinal` counts periods from 1; 0 is the opening statement of an account that pays its base
    fee in advance. `document` is the whole statement as `tallystick.plans.statement.Statement`.
    """

    __tablename__ = "statements"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (UniqueConstraint("customer_id", "ordinal"),)

    statement_id: int | None = count(default=None, primary_key=True)
    customer_id: str = Field(foreign_key="customers.customer_id")
    ordinal: int
    period_start: datetime = instant()
    period_end: datetime = instant()
    created_at: datetime = instant(sa_column_kwargs=NOW)
    plan: str
    usage_nano_usd: int = count()
    """The charge of every record and adjustment of the period: what the ledger says."""
    due_nano_usd: int = count()
    """What is to be collected, exactly."""
    due_cents: int = count()
    """The same, rounded once."""
    document: dict[str, Any] = document()


class StatementLine(SQLModel, table=True):
    """One line of a statement that is to be collected, and through what."""

    __tablename__ = "statement_lines"  # pyright: ignore[reportAssignmentType]

    statement_id: int = count(primary_key=True, foreign_key="statements.statement_id")
    number: int = Field(primary_key=True)
    kind: str
    collected_by: str
    """`metered` or `subscription` (Stripe makes the line), `item` (we do), `wallet`."""
    description: str
    amount_nano_usd: int = count()
    amount_cents: int = count()


class StatementItem(SQLModel, table=True):
    """Which Stripe invoice item collects a line of a statement; added once the item exists."""

    __tablename__ = "statement_items"  # pyright: ignore[reportAssignmentType]

    statement_id: int = count(primary_key=True, foreign_key="statements.statement_id")
    number: int = Field(primary_key=True)
    stripe_invoice_item_id: str = Field(unique=True)
    stripe_invoice_id: str


class Invoice(SQLModel, table=True):
    """A Stripe invoice as Stripe showed it last, and since when it waits for its money.

    `purpose` is `period`, `opening` or `top_up`. `failed_at` is the first failed payment
    since it was last paid in full; it stays while retries fail. `checked_at` is when it was last
    fetched; an older look never overwrites a newer one.
    """

    __tablename__ = "invoices"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (Index("ix_invoices_customer", "customer_id", "created_at"),)

    stripe_invoice_id: str = Field(primary_key=True)
    customer_id: str = Field(foreign_key="customers.customer_id")
    purpose: str
    ordinal: int | None = None
    """Of the statement that it collects."""
    status: str
    currency: str = "usd"
    total_cents: int = count()
    tax_cents: int = count(default=0)
    amount_due_cents: int = count()
    amount_paid_cents: int = count()
    created_at: datetime = instant()
    finalized_at: datetime | None = instant(default=None)
    due_at: datetime | None = instant(default=None)
    paid_at: datetime | None = instant(default=None)
    failed_at: datetime | None = instant(default=None)
    failure: str | None = None
    attempt_count: int = 0
    next_payment_attempt: datetime | None = instant(default=None)
    hosted_url: str | None = None
    checked_at: datetime = instant()


class Alert(SQLModel, table=True):
    """A share of an allowance, a cap or a balance was passed: once per period each."""

    __tablename__ = "alerts"  # pyright: ignore[reportAssignmentType]

    customer_id: str = Field(primary_key=True, foreign_key="customers.customer_id")
    period_start: datetime = instant(primary_key=True)
    subject: str = Field(primary_key=True)
    """`allowance`, `cap` or `balance`."""
    percent: int = Field(primary_key=True)
    passed_at: datetime = instant()


class UsageWatch(SQLModel, table=True):
    """How far usage has been looked through for alerts: up to these rows (`ledger.usage_watch`)."""

    __tablename__ = "usage_watches"  # pyright: ignore[reportAssignmentType]

    watch: str = Field(primary_key=True)
    usage_record_id: int = count(default=0)
    adjustment_id: int = count(default=0)


class Notice(SQLModel, table=True):
    """Something a customer or an operator is to be told, once.

    `key` says what about (`grace-started:in_123`): unique per customer, so that a step that is
    repeated tells nobody twice.
    """

    __tablename__ = "notices"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        UniqueConstraint("customer_id", "key", postgresql_nulls_not_distinct=True),
        Index("ix_notices_waiting", "notice_id", postgresql_where=text("delivered_at IS NULL")),
    )

    notice_id: int | None = count(default=None, primary_key=True)
    customer_id: str | None = Field(default=None, foreign_key="customers.customer_id")
    """None where it concerns no account, or all of them; such a notice is for operators."""
    key: str
    kind: str
    audience: str
    """`customer` or `operator`."""
    message: str
    facts: dict[str, Any] = document()
    raised_at: datetime = instant()
    delivered_at: datetime | None = instant(default=None)


class StripeEvent(SQLModel, table=True):
    """An event that Stripe sent or listed: the inbox of webhooks.

    Only what is needed to look again is kept, no payload: what happened is read from Stripe when
    the event is applied. `received_at` is ours; `forwarded_at` is when its cycle was told, and
    `applied_at` when its cycle had looked. A parked event waits for a person. `reason` says why it
    is parked, or why nothing was to be done.
    """

    __tablename__ = "stripe_events"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        Index("ix_stripe_events_open", "received_at", postgresql_where=text("applied_at IS NULL")),
        Index("ix_stripe_events_object", "object_id"),
    )

    event_id: str = Field(primary_key=True)
    type: str
    form: str
    """`snapshot` or `thin`; `unknown`, like the type, of one that could not be read."""
    api_version: str | None = None
    object_id: str | None = None
    stripe_customer_id: str | None = None
    customer_id: str | None = None
    created_at: datetime = instant()
    received_at: datetime = instant()
    forwarded_at: datetime | None = instant(default=None)
    applied_at: datetime | None = instant(default=None)
    parked_at: datetime | None = instant(default=None)
    reason: str | None = None


class EventListing(SQLModel, table=True):
    """How far Stripe's own list of events has been read, for each form of event.

    Every event that Stripe created before `read_until` is in the inbox, delivered or not.
    """

    __tablename__ = "event_listings"  # pyright: ignore[reportAssignmentType]

    form: str = Field(primary_key=True)
    read_until: datetime = instant()


class MeterRejection(SQLModel, table=True):
    """Stripe took a meter event and rejected it later (a sample of its error report)."""

    __tablename__ = "meter_rejections"  # pyright: ignore[reportAssignmentType]

    identifier: str = Field(primary_key=True)
    code: str = Field(primary_key=True)
    event_id: str
    message: str
    rejected_at: datetime = instant()
