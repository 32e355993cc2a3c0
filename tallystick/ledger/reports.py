"""What the ledger can tell: totals to tally, and records one by one.

Reads only. Each report is one statement, so it shows one moment and not a mixture of several.
Money and tokens are what holds now, adjustments included (`ledger.effective`).
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Select, Text, and_, func, select
from sqlmodel import col

from tallystick.ledger.account_tables import Invoice
from tallystick.ledger.batch_tables import BatchResult, BatchTry
from tallystick.ledger.database import Transaction, entity
from tallystick.ledger.effective import effective
from tallystick.ledger.tables import Adjustment, MeterEvent, UsageRecord
from tallystick.money import from_nano_usd
from tallystick.pricing.tokens import TOKEN_KINDS


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the usage records of a customer, or of all."""

    customer_id: str
    requests: int
    tokens: dict[str, int]
    cost_usd: Decimal
    charge_usd: Decimal
    unpriced: int


async def totals(tx: Transaction, customer_id: str | None = None) -> list[Totals]:
    """Return the sums of each customer with usage, by id."""
    usage = effective()
    statement = (
        select(
            usage.c.customer_id,
            func.count().label("requests"),
            func.coalesce(func.sum(usage.c.cost_usd), 0).label("cost"),
            func.coalesce(func.sum(usage.c.charge_nano_usd), 0).label("charge"),
            func.count().filter(usage.c.cost_usd.is_(None)).label("unpriced"),
            *(func.sum(usage.c[f"{kind}_tokens"]).label(kind) for kind in TOKEN_KINDS),
        )
        .group_by(usage.c.customer_id)
        .order_by(usage.c.customer_id)
    )
    if customer_id is not None:
        statement = statement.where(usage.c.customer_id == customer_id)
    return [
        Totals(
            customer_id=row.customer_id,
            requests=row.requests,
            tokens={kind: int(row._mapping[kind]) for kind in TOKEN_KINDS},  # pyright: ignore[reportPrivateUsage]
            cost_usd=Decimal(row.cost),
            charge_usd=from_nano_usd(int(row.charge)),
            unpriced=row.unpriced,
        )
        for row in await tx.execute(statement)
    ]


@dataclass(frozen=True, slots=True)
class PeriodTotals:
    """What is billed of a customer in a span of time: requests recorded in it, and all charges."""

    requests: int
    charge_usd: Decimal


async def period_totals(
    tx: Transaction, customer_id: str, start: datetime | None, end: datetime | None
) -> PeriodTotals:
    """Return what is billed in [start, end), adjustments included; None leaves that side open."""
    sums: list[Select[Any, Any]] = []
    for table in (UsageRecord, Adjustment):
        bounds = [col(table.billed_at) >= start] if start else []
        bounds += [col(table.billed_at) < end] if end else []
        charge = func.coalesce(func.sum(col(table.charge_nano_usd)), 0)
        of_customer = col(table.customer_id) == customer_id
        sums.append(select(func.count(), charge).where(of_customer, *bounds))
    (requests, charged), (_, adjusted) = [(await tx.execute(each)).one() for each in sums]
    return PeriodTotals(requests, from_nano_usd(int(charged + adjusted)))


async def invoices(tx: Transaction, customer_id: str) -> list[Invoice]:
    """Return the customer's invoices as Stripe showed them last, the newest first."""
    statement = (
        select(Invoice)
        .where(col(Invoice.customer_id) == customer_id)
        .order_by(col(Invoice.created_at).desc())
    )
    return [entity(Invoice, row) for row in await tx.execute(statement)]


@dataclass(frozen=True, slots=True)
class MeterTotals:
    """One meter's sums: what is in the outbox, and what Stripe has acknowledged of it."""

    meter: str
    events: int
    value: int
    delivered_events: int
    delivered_value: int


async def meter_totals(tx: Transaction) -> list[MeterTotals]:
    """Return the sums of each meter, by name."""
    delivered = col(MeterEvent.delivered_at).is_not(None)
    value = func.sum(col(MeterEvent.value))
    statement = (
        select(
            col(MeterEvent.meter),
            func.count().label("events"),
            value.label("value"),
            func.count().filter(delivered).label("delivered_events"),
            func.coalesce(value.filter(delivered), 0).label("delivered_value"),
        )
        .group_by(col(MeterEvent.meter))
        .order_by(col(MeterEvent.meter))
    )
    return [
        MeterTotals(
            row.meter, row.events, int(row.value), row.delivered_events, int(row.delivered_value)
        )
        for row in await tx.execute(statement)
    ]


def _events(*which: ColumnElement[bool]) -> ColumnElement[Any]:
    """Return events that belong to a usage record, as a list in JSON."""
    return (
        select(
            func.coalesce(
                func.jsonb_agg(
                    func.jsonb_build_object(
                        "request_id", col(MeterEvent.request_id),
                        "meter", col(MeterEvent.meter),
                        "identifier", col(MeterEvent.identifier),
                        "value", col(MeterEvent.value),
                        "stripe_customer_id", col(MeterEvent.stripe_customer_id),
                        "delivered_at", col(MeterEvent.delivered_at),
                        "withdrawn_at", col(MeterEvent.withdrawn_at),
                    )
                ),
                func.jsonb_build_array(),
            )
        )
        .where(*which)
        .correlate(UsageRecord)
        .scalar_subquery()
    )  # fmt: skip


def _metered_as() -> ColumnElement[Any]:
    """Return the request id of the events of a record's chunk, if it is of a batch."""
    return (
        select(col(BatchResult.metered_as))
        .join(
            BatchTry,
            and_(
                col(BatchTry.job_id) == col(BatchResult.job_id),
                col(BatchTry.number) == col(BatchResult.number),
            ),
        )
        .where(col(BatchTry.attempt_id) == col(UsageRecord.attempt_id))
        .correlate(UsageRecord)
        .scalar_subquery()
    )


async def records(
    tx: Transaction, customer_id: str | None = None
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield usage records as they were written, in that order, with what belongs to each.

    That is its meter events (in a batch those that tell the sum of its chunk), its adjustments, and
    as `effective_...` what holds with them.

    Streamed from a server-side cursor: memory does not grow with the ledger.
    """
    own = _events(col(MeterEvent.usage_record_id) == col(UsageRecord.usage_record_id))
    of_chunk = _events(
        col(MeterEvent.customer_id) == col(UsageRecord.customer_id),
        col(MeterEvent.request_id) == _metered_as(),
    )
    corrections = (
        select(
            func.coalesce(
                func.jsonb_agg(
                    func.jsonb_build_object(
                        "created_at", col(Adjustment.created_at),
                        "price_book", col(Adjustment.price_book),
                        "reason", col(Adjustment.reason),
                        "status", col(Adjustment.status),
                        # As text: a JSON number would be read as a float.
                        "cost_usd", func.trim_scale(col(Adjustment.cost_usd)).cast(Text),
                        "charge_nano_usd", col(Adjustment.charge_nano_usd),
                        "lines", col(Adjustment.lines),
                    )
                ),
                func.jsonb_build_array(),
            )
        )
        .where(col(Adjustment.usage_record_id) == col(UsageRecord.usage_record_id))
        .correlate(UsageRecord)
        .scalar_subquery()
        .label("adjustments")
    )  # fmt: skip
    usage = effective()
    statement = (
        select(
            UsageRecord,
            usage.c.status.label("effective_status"),
            usage.c.cost_usd.label("effective_cost_usd"),
            usage.c.charge_nano_usd.label("effective_charge_nano_usd"),
            corrections,
            own.op("||")(of_chunk).label("meter_events"),
        )
        .join(usage, usage.c.usage_record_id == col(UsageRecord.usage_record_id))
        .order_by(col(UsageRecord.usage_record_id))
    )
    if customer_id is not None:
        statement = statement.where(col(UsageRecord.customer_id) == customer_id)
    async for row in await tx.stream(statement):
        yield dict(row._mapping)  # pyright: ignore[reportPrivateUsage]
