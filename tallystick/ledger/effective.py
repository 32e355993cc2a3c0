"""Usage as it holds now: each record with its adjustments added up.

Every report reads from here, so that a correction can never be in one of them and not in another.
Numbers are sums; where a record has no price, the first adjustment's price stands alone. Status,
price book and lines are the latest adjustment's.
"""

from typing import Any

from sqlalchemy import Subquery, func, select
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by
from sqlmodel import col

from tallystick.ledger.tables import Adjustment, UsageRecord
from tallystick.pricing.tokens import TOKEN_KINDS

SUMMED = (
    "cost_usd",
    "charge_nano_usd",
    *(f"{kind}_tokens" for kind in TOKEN_KINDS),
    "web_searches",
)
"""Columns that a record and an adjustment both have, to be added."""
REPLACED = ("status", "price_book", "lines")
"""Columns that a record and an adjustment both have, the latest of which holds."""


def effective() -> Subquery:
    """Return usage records as a subquery with all their columns, adjustments included."""
    adjusted = _adjusted()
    statement = select(*(_holding(name, adjusted) for name in UsageRecord.model_fields)).outerjoin(
        adjusted, adjusted.c.usage_record_id == col(UsageRecord.usage_record_id)
    )
    return statement.subquery("usage")


def _holding(name: str, adjusted: Subquery) -> Any:
    recorded: Any = getattr(UsageRecord, name)
    if name in SUMMED:
        difference = adjusted.c[name]
        return func.coalesce(recorded + func.coalesce(difference, 0), difference).label(name)
    if name in REPLACED:
        return func.coalesce(adjusted.c[name], recorded).label(name)
    return recorded


def _adjusted() -> Subquery:
    return (
        select(
            col(Adjustment.usage_record_id),
            *(func.sum(getattr(Adjustment, name)).label(name) for name in SUMMED),
            *(_latest(name) for name in REPLACED),
        )
        .group_by(col(Adjustment.usage_record_id))
        .subquery("adjusted")
    )


def _latest(name: str) -> Any:
    column: Any = getattr(Adjustment, name)
    ordered = aggregate_order_by(column, col(Adjustment.adjustment_id).desc())
    return func.array_agg(ordered, type_=ARRAY(column.type))[1].label(name)
