"""The tables of reconciliation: what was looked at, what differed, and what was done about it.

Nothing here is usage and nothing here is edited into usage. A *discrepancy* names a place where two
records differ, once for ever (`key`): every later run that sees it again adds a row to its history
and changes how it stands. A *repair* is committed before it is made, as an attempt is before a call
to Claude, and is unique by what it does to which subject, so that applying it twice does it once.

What others report (`provider_usage`, `provider_costs`, `tally_hours`) is a copy of the latest look,
kept for the next comparison and for the plots.
"""

from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import Index, Numeric, Text, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from tallystick.ledger.tables import NOW, count, document, instant


class DiscrepancyState(StrEnum):
    """How a discrepancy stands."""

    OPEN = "open"
    """Nobody knows yet what to do, or a person has to decide (`proposal`)."""
    EXPLAINED = "explained"
    """Its cause is known and nothing is to be repaired."""
    REPAIRED = "repaired"
    """A repair was made; the next comparison has to show that both sides agree."""
    SETTLED = "settled"
    """Both sides agree by now, or what is left is booked."""
    DISMISSED = "dismissed"
    """A person has decided to leave it, with a reason."""


UNSETTLED = "state IN ('open', 'repaired')"
"""What a run looks at again, as the condition of a partial index."""


class Reconciliation(SQLModel, table=True):
    """One run over one closed interval.

    `claude_state` is how the comparison with Anthropic's reports went: `compared`, `no_admin_key`,
    `unsettled` (the reports had not got so far in the time there was) or `unavailable`.
    `tallied` holds the totals of each record that was looked at, `calls` the calls made for it.
    """

    __tablename__ = "reconciliations"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (Index("ix_reconciliations_interval", "start_at", "end_at"),)

    reconciliation_id: int | None = count(default=None, primary_key=True)
    run: str = Field(unique=True)
    """The workflow run that it is, so that a repeated step opens no second one."""
    kind: str
    """`hourly`, `daily` or `manual`."""
    start_at: datetime = instant()
    end_at: datetime = instant()
    begun_at: datetime = instant()
    finished_at: datetime | None = instant(default=None)
    claude_state: str | None = None
    refreshed_at: datetime | None = instant(default=None)
    """The watermark of Anthropic's report."""
    tallied: dict[str, Any] | None = document(default=None)
    calls: dict[str, int] | None = document(default=None)


class ProviderUsage(SQLModel, table=True):
    """One row of Anthropic's usage report, as it was seen last. Dimensions it leaves null are ''.

    The counts are of one bucket, an hour by `bucket_start`.
    """

    __tablename__ = "provider_usage"  # pyright: ignore[reportAssignmentType]

    bucket_start: datetime = instant(primary_key=True)
    model: str = Field(primary_key=True)
    api_key_id: str = Field(primary_key=True)
    service_tier: str = Field(primary_key=True)
    inference_geo: str = Field(primary_key=True)
    speed: str = Field(primary_key=True)
    requests: int | None = count(default=None)
    input_tokens: int = count()
    output_tokens: int = count()
    cache_write_5m_tokens: int = count()
    cache_write_1h_tokens: int = count()
    cache_read_tokens: int = count()
    web_searches: int = count()
    refreshed_at: datetime = instant()


class ProviderCost(SQLModel, table=True):
    """One row of Anthropic's cost report of a UTC day, as it was seen last. US dollars.

    `component` is a token kind of ours, `web_search`, or what the report calls the cost.
    """

    __tablename__ = "provider_costs"  # pyright: ignore[reportAssignmentType]

    day: date = Field(primary_key=True)
    model: str = Field(primary_key=True)
    api_key_id: str = Field(primary_key=True)
    component: str = Field(primary_key=True)
    list_usd: Decimal = Field(sa_type=Numeric)
    """Before discounts."""
    amount_usd: Decimal = Field(sa_type=Numeric)
    """After discounts."""
    refreshed_at: datetime = instant()


class TallyHour(SQLModel, table=True):
    """What each record says of one hour, as it was seen last: what the plots draw.

    `unit` is a token kind, or `charge_nano_usd`. A side that was not looked at, or does not know
    the unit, is null.
    """

    __tablename__ = "tally_hours"  # pyright: ignore[reportAssignmentType]

    hour: datetime = instant(primary_key=True)
    unit: str = Field(primary_key=True)
    claude: int | None = count(default=None)
    ledger: int | None = count(default=None)
    outbox: int | None = count(default=None)
    stripe: int | None = count(default=None)


class Discrepancy(SQLModel, table=True):
    """A place where two records differ.

    `key` names the place: the pair, the interval it was narrowed to, and the dimensions; never the
    cause, which later runs may know better. `place` holds the dimensions by name, `amounts` for
    each unit that differs what each side has: `{"input": {"claude": 120, "ledger": 100}}`.
    `requests` lists what it was narrowed to, `[{"customer_id", "request_id", ...}]`, at most 20.
    """

    __tablename__ = "discrepancies"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        Index("ix_discrepancies_unsettled", "start_at", postgresql_where=text(UNSETTLED)),
        Index("ix_discrepancies_customer", "customer_id", "start_at"),
    )

    discrepancy_id: int | None = count(default=None, primary_key=True)
    key: str = Field(unique=True)
    pair: str
    """`claude-ledger`, `cost-ledger`, `ledger-outbox` or `outbox-stripe`."""
    kind: str
    start_at: datetime = instant()
    end_at: datetime = instant()
    customer_id: str | None = None
    place: dict[str, Any] = document()
    amounts: dict[str, Any] = document()
    tokens: int = count(default=0)
    """By how many tokens the sides differ, all kinds together; what tolerance is compared with."""
    usd: Decimal | None = Field(default=None, sa_type=Numeric)
    """By how much money, where that can be told; positive where we or our customer pay more."""
    cause: str
    words: str
    """What a person reads: what differs, why, and what becomes of it."""
    requests: list[dict[str, Any]] = document()
    proposal: dict[str, Any] | None = document(default=None)
    """`{"repair", "automatic", "words", "subjects": [...]}`; null where there is nothing to do."""
    state: DiscrepancyState = Field(sa_type=Text)
    found_at: datetime = instant()
    found_by: int = count(foreign_key="reconciliations.reconciliation_id")
    changed_at: datetime = instant()


class DiscrepancyEvent(SQLModel, table=True):
    """What was seen of a discrepancy or done about it. Only ever added."""

    __tablename__ = "discrepancy_events"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (Index("ix_discrepancy_events_discrepancy", "discrepancy_id"),)

    event_id: int | None = count(default=None, primary_key=True)
    discrepancy_id: int = count(foreign_key="discrepancies.discrepancy_id")
    reconciliation_id: int | None = count(default=None)
    at: datetime = instant()
    state: str
    words: str
    amounts: dict[str, Any] = document()


class Repair(SQLModel, table=True):
    """One thing done about a discrepancy: committed before it is done, completed after it.

    `outcome` is null while nobody knows; then `done` or `refused`, and `words` says more.
    """

    __tablename__ = "repairs"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (UniqueConstraint("discrepancy_id", "repair", "subject"),)

    repair_id: int | None = count(default=None, primary_key=True)
    discrepancy_id: int = count(foreign_key="discrepancies.discrepancy_id")
    repair: str
    subject: str
    by: str
    """`automatic` or `operator`."""
    begun_at: datetime = instant()
    done_at: datetime | None = instant(default=None)
    outcome: str | None = None
    words: str | None = None


class AttemptSettlement(SQLModel, table=True):
    """What an attempt of unknown outcome turned out to be, by Anthropic's report. Only ever added.

    Our cost, charged to nobody. `shared` says that several attempts were told from each other by
    their estimates only; together they are exact.
    """

    __tablename__ = "attempt_settlements"  # pyright: ignore[reportAssignmentType]

    attempt_id: int = count(primary_key=True, foreign_key="attempts.attempt_id")
    discrepancy_id: int | None = count(default=None, foreign_key="discrepancies.discrepancy_id")
    reconciliation_id: int = count(foreign_key="reconciliations.reconciliation_id")
    settled_at: datetime = instant(sa_column_kwargs=NOW)
    served: bool
    input_tokens: int = count(default=0)
    output_tokens: int = count(default=0)
    cache_write_5m_tokens: int = count(default=0)
    cache_write_1h_tokens: int = count(default=0)
    cache_read_tokens: int = count(default=0)
    web_searches: int = count(default=0)
    cost_usd: Decimal = Field(sa_type=Numeric)
    shared: bool = False
    words: str


class MeterCorrection(SQLModel, table=True):
    """An event that only corrects what Stripe has counted: no usage, and in no sum of the outbox.

    `value` is negative where Stripe has counted too much. `first_sent_at` is committed before the
    send, as for any meter event.
    """

    __tablename__ = "meter_corrections"  # pyright: ignore[reportAssignmentType]

    identifier: str = Field(primary_key=True)
    discrepancy_id: int = count(foreign_key="discrepancies.discrepancy_id")
    customer_id: str
    stripe_customer_id: str
    meter: str
    value: int = count()
    occurred_at: datetime = instant()
    first_sent_at: datetime | None = instant(default=None)
    delivered_at: datetime | None = instant(default=None)


class CollectionCorrection(SQLModel, table=True):
    """What Stripe's meter has collected too little (positive) or too much of a closed period.

    No charge: the charge was on the period's own statement. The next statement has a line for it.
    Only ever added.
    """

    __tablename__ = "collection_corrections"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (Index("ix_collection_corrections_billed", "customer_id", "billed_at"),)

    discrepancy_id: int = count(primary_key=True, foreign_key="discrepancies.discrepancy_id")
    customer_id: str = Field(foreign_key="customers.customer_id")
    amount_nano_usd: int = count()
    billed_at: datetime = instant()
    created_at: datetime = instant(sa_column_kwargs=NOW)
    reason: str
