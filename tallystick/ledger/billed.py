"""What a period has billed, added up in the database: quantities, costs, charges.

A period is the records and adjustments whose `billed_at` lies in it; once its books are closed
they never change (`ledger.accounts`). Sums are by model, kind, unit price and the rows of terms
that each record names, so that what a line costs and is charged can be worked out from the sums
alone, and a million records come back as a few dozen rows.

An adjustment holds the lines of its corrected record and not their difference; that is taken here,
against the lines that held before. One that brings a first price is no correction but usage.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Row,
    Text,
    and_,
    case,
    exists,
    func,
    literal_column,
    select,
    true,
    union_all,
)
from sqlalchemy import column as sql_column
from sqlalchemy.orm import aliased
from sqlmodel import col

from tallystick.ledger import terms
from tallystick.ledger.database import Transaction
from tallystick.ledger.reconciliation_tables import CollectionCorrection
from tallystick.ledger.tables import Adjustment, MeterEvent, UsageRecord
from tallystick.metering import CHARGE_METER
from tallystick.plans import PlanTerms
from tallystick.plans.billed import Billed, Booked, Sold
from tallystick.pricing import TokenKind


class Window(NamedTuple):
    """What is billed to a customer in [`since`, `end`); from the first record on if that is None.

    What was served before `start` is late usage.
    """

    customer_id: str
    since: datetime | None
    start: datetime
    end: datetime


async def billed(tx: Transaction, window: Window) -> Billed:
    """Return all that the window has billed; to be read in one snapshot, its books closed."""
    adjusted = _adjusted(window)
    sold = [
        *await tx.execute(_sold(_recorded(window).subquery("recorded"))),
        *await tx.execute(_sold(_differences(adjusted))),
    ]
    recorded = (await tx.execute(_booked(window))).all()
    booked = [*recorded, *await tx.execute(_booked_adjustments(adjusted))]
    of = await _terms(tx, window.customer_id, [*sold, *booked])
    return Billed(
        sold=tuple(
            Sold(
                section=row.section,
                terms=of[_which(row)],
                model=row.model,
                kind=TokenKind(row.kind),
                unit_usd=Decimal(row.unit_usd),
                batch=row.batch,
                first_at=row.first_at,
                quantity=int(row.quantity),
            )
            for row in sold
        ),
        booked=tuple(
            Booked(
                section=row.section,
                terms=of[_which(row)],
                records=row.records,
                cost_usd=Decimal(row.cost),
                charge_nano_usd=int(row.charge),
            )
            for row in booked
            if row.records
        ),
        withdrawn_nano_usd=int((await tx.execute(_withdrawn(window))).scalar_one()),
        corrections_nano_usd=int((await tx.execute(_corrections(window))).scalar_one()),
        unpriced=sum(row.unpriced for row in recorded),
    )


# --- Which rows of terms a record was charged by --------------------------------------------------
_WHICH = ("plan", "plan_valid_from", "customer_terms_from")
_Which = tuple[str, datetime, datetime | None]


def _which(row: Row[Any]) -> _Which:
    return (row.plan, row.plan_valid_from, row.customer_terms_from)


async def _terms(
    tx: Transaction, customer_id: str, rows: Sequence[Row[Any]]
) -> dict[_Which, PlanTerms]:
    named = {_which(row) for row in rows}
    return {which: await terms.as_recorded(tx, customer_id, *which) for which in named}


# --- Lines ----------------------------------------------------------------------------------------
# Written out, since a parameter that is grouped by would count as another one than the selected.
_ON_TIME, _LATE, _CORRECTION, _PLUS, _MINUS = map(
    literal_column, ("'usage'", "'late_usage'", "'adjustments'", "1", "-1")
)
_OF_RECORD = tuple(getattr(UsageRecord, name) for name in _WHICH)
_BATCH = func.coalesce(
    col(UsageRecord.evidence)["usage"]["service_tier"].astext == "batch",  # pyright: ignore[reportIndexIssue]
    False,
).label("batch")


def _within(
    table: type[UsageRecord] | type[Adjustment] | type[CollectionCorrection], window: Window
) -> list[ColumnElement[bool]]:
    conditions = [col(table.customer_id) == window.customer_id, col(table.billed_at) < window.end]
    if window.since is not None:
        conditions.append(col(table.billed_at) >= window.since)
    return conditions


def _served_in(window: Window) -> ColumnElement[Any]:
    return case((col(UsageRecord.served_at) < window.start, _LATE), else_=_ON_TIME)


def _recorded(window: Window) -> Any:
    return select(
        _served_in(window).label("section"),
        *_OF_RECORD,
        _BATCH,
        col(UsageRecord.served_at),
        col(UsageRecord.lines),
        _PLUS.label("sign"),
    ).where(*_within(UsageRecord, window))


def _adjusted(window: Window) -> FromClause:
    """Return the window's adjustments with their record's terms and the lines they replace."""
    earlier = aliased(Adjustment)
    lines_before = (
        select(col(earlier.lines))
        .where(
            col(earlier.usage_record_id) == col(Adjustment.usage_record_id),
            col(earlier.adjustment_id) < col(Adjustment.adjustment_id),
        )
        .order_by(col(earlier.adjustment_id).desc())
        .limit(1)
        .correlate(Adjustment)
        .scalar_subquery()
    )
    first_price = and_(col(UsageRecord.cost_usd).is_(None), lines_before.is_(None))
    return (
        select(
            case((first_price, _served_in(window)), else_=_CORRECTION).label("section"),
            *_OF_RECORD,
            _BATCH,
            col(UsageRecord.served_at),
            col(Adjustment.lines),
            func.coalesce(lines_before, col(UsageRecord.lines)).label("lines_before"),
            col(Adjustment.cost_usd),
            col(Adjustment.charge_nano_usd),
        )
        .join(UsageRecord, col(UsageRecord.usage_record_id) == col(Adjustment.usage_record_id))
        .where(*_within(Adjustment, window))
        .cte("adjusted")
    )


def _differences(adjusted: FromClause) -> FromClause:
    """Return the lines that hold now as added and those that held before as taken away."""
    common = [adjusted.c[name] for name in ("section", *_WHICH, "batch", "served_at")]
    return union_all(
        select(*common, adjusted.c.lines, _PLUS.label("sign")),
        select(*common, adjusted.c.lines_before, _MINUS),
    ).subquery("differences")


def _sold(source: FromClause) -> Any:
    line = (
        func.jsonb_to_recordset(source.c.lines)
        .table_valued(
            sql_column("model", Text),
            sql_column("kind", Text),
            sql_column("quantity", BigInteger),
            # As the text that it is in the record: to group by it is all that is done here.
            sql_column("unit_usd", Text),
        )
        .render_derived(name="line", with_types=True)
    )
    by = [
        *(source.c[name] for name in ("section", *_WHICH, "batch")),
        line.c.model,
        line.c.kind,
        line.c.unit_usd,
    ]
    quantity = func.sum(source.c.sign * line.c.quantity)
    return (
        select(*by, quantity.label("quantity"), func.min(source.c.served_at).label("first_at"))
        .select_from(source.join(line, true()))
        .group_by(*by)
        .having(quantity != 0)
    )


# --- Sums of the rows themselves ------------------------------------------------------------------
def _booked(window: Window) -> Any:
    priced = col(UsageRecord.cost_usd).is_not(None)
    adjusted = exists().where(col(Adjustment.usage_record_id) == col(UsageRecord.usage_record_id))
    section = _served_in(window).label("section")
    return (
        select(
            section,
            *_OF_RECORD,
            func.count().filter(priced).label("records"),
            func.count().filter(~priced, ~adjusted).label("unpriced"),
            func.coalesce(func.sum(col(UsageRecord.cost_usd)), 0).label("cost"),
            func.coalesce(func.sum(col(UsageRecord.charge_nano_usd)), 0).label("charge"),
        )
        .where(*_within(UsageRecord, window))
        .group_by(section, *_OF_RECORD)
    )


def _booked_adjustments(adjusted: FromClause) -> Any:
    by = [adjusted.c[name] for name in ("section", *_WHICH)]
    return select(
        *by,
        func.count().label("records"),
        func.sum(adjusted.c.cost_usd).label("cost"),
        func.sum(adjusted.c.charge_nano_usd).label("charge"),
    ).group_by(*by)


def _withdrawn(window: Window) -> Any:
    # Only of usage on time: late usage is on no metered line. What a person withdraws of a later
    # period, while this one waits to be settled, is that period's.
    return select(func.coalesce(func.sum(col(MeterEvent.value)), 0)).where(
        col(MeterEvent.customer_id) == window.customer_id,
        col(MeterEvent.meter) == CHARGE_METER,
        col(MeterEvent.withdrawn_at).is_not(None),
        col(MeterEvent.occurred_at) >= window.start,
        col(MeterEvent.billed_at) < window.end,
    )


def _corrections(window: Window) -> Any:
    amount = func.sum(col(CollectionCorrection.amount_nano_usd))
    return select(func.coalesce(amount, 0)).where(*_within(CollectionCorrection, window))
