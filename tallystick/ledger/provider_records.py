"""Copies of Anthropic's reports, as they were seen last: written by a look, read by comparisons.

A look at an interval replaces what earlier ones have seen of it, in one transaction, so a copy is
never a mixture of two and a row that the report has taken back is gone.
"""

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import SQLModel, col

from tallystick.ledger.database import Transaction
from tallystick.ledger.reconciliation_tables import ProviderCost, ProviderUsage
from tallystick.pricing import TOKEN_KINDS, TokenCounts
from tallystick.reconciling.reported import CostRow, Place, UsageRow, place_of

_COUNTS = (*(f"{kind}_tokens" for kind in TOKEN_KINDS), "web_searches")
"""The columns of counts, in the order of `TokenCounts`."""
_AT_ONCE = 1_000


async def store_usage(
    tx: Transaction,
    rows: Sequence[UsageRow],
    *,
    start: datetime,
    end: datetime,
    refreshed_at: datetime,
) -> None:
    """Keep the rows of the hours of [start, end) instead of those that are kept of them."""
    await tx.execute(
        delete(ProviderUsage).where(
            col(ProviderUsage.bucket_start) >= start, col(ProviderUsage.bucket_start) < end
        )
    )
    values = [
        {
            "bucket_start": row.at,
            "model": row.model,
            "api_key_id": row.api_key_id,
            "service_tier": row.service_tier,
            "inference_geo": row.inference_geo,
            "speed": row.speed,
            "requests": row.requests,
            **dict(zip(_COUNTS, row.counts, strict=True)),
            "refreshed_at": refreshed_at,
        }
        for row in rows
    ]
    await _put(tx, ProviderUsage, values)


async def store_costs(
    tx: Transaction, rows: Sequence[CostRow], *, first: date, end: date, refreshed_at: datetime
) -> None:
    """Keep the rows of the days [first, end) instead of those that are kept of them."""
    await tx.execute(
        delete(ProviderCost).where(col(ProviderCost.day) >= first, col(ProviderCost.day) < end)
    )
    values = [{**row._asdict(), "refreshed_at": refreshed_at} for row in rows]
    await _put(tx, ProviderCost, values)


async def _put(tx: Transaction, table: type[SQLModel], values: Sequence[dict[str, Any]]) -> None:
    for begin in range(0, len(values), _AT_ONCE):
        # Another run may look at the same hours; whoever comes last has seen more.
        statement = insert(table).values(values[begin : begin + _AT_ONCE])
        keys = [column.name for column in statement.table.primary_key]
        told = {name: statement.excluded[name] for name in values[0] if name not in keys}
        await tx.execute(statement.on_conflict_do_update(index_elements=keys, set_=told))


async def usage_rows(tx: Transaction, start: datetime, end: datetime) -> list[UsageRow]:
    """Return what the usage report said last of the hours of [start, end), all keys together."""
    dimensions = [
        getattr(ProviderUsage, name)
        for name in ("bucket_start", "model", "service_tier", "inference_geo", "speed")
    ]
    requests = func.sum(col(ProviderUsage.requests))
    all_told = func.count() == func.count(col(ProviderUsage.requests))
    statement = (
        select(
            *dimensions,
            requests.label("requests"),
            all_told.label("told"),
            *(func.sum(getattr(ProviderUsage, name)).label(name) for name in _COUNTS),
        )
        .where(col(ProviderUsage.bucket_start) >= start, col(ProviderUsage.bucket_start) < end)
        .group_by(*dimensions)
    )
    return [
        UsageRow(
            at=row.bucket_start,
            model=row.model,
            api_key_id="",
            service_tier=row.service_tier,
            inference_geo=row.inference_geo,
            speed=row.speed,
            counts=TokenCounts(*(int(getattr(row, name)) for name in _COUNTS)),
            requests=int(row.requests) if row.told else None,
        )
        for row in await tx.execute(statement)
    ]


async def keys_of(tx: Transaction, place: Place, start: datetime, end: datetime) -> list[str]:
    """Return the ids of the API keys that the report names in a place, in their order."""
    names = ("model", "service_tier", "inference_geo", "speed")
    dimensions = [getattr(ProviderUsage, name) for name in names]
    statement = (
        select(col(ProviderUsage.api_key_id), *dimensions)
        .where(col(ProviderUsage.bucket_start) >= start, col(ProviderUsage.bucket_start) < end)
        .group_by(col(ProviderUsage.api_key_id), *dimensions)
    )
    return sorted(
        {
            row.api_key_id
            for row in await tx.execute(statement)
            if place_of(*(getattr(row, name) for name in names)) == place
        }
    )


async def cost_rows(tx: Transaction, first: date, end: date) -> list[tuple[CostRow, int]]:
    """Return what the cost report said last of the days [first, end), all keys together.

    Each with how many rows of the report it is the sum of.
    """
    dimensions = [col(ProviderCost.day), col(ProviderCost.model), col(ProviderCost.component)]
    statement = (
        select(
            *dimensions,
            func.count().label("rows"),
            func.sum(col(ProviderCost.list_usd)).label("list_usd"),
            func.sum(col(ProviderCost.amount_usd)).label("amount_usd"),
        )
        .where(col(ProviderCost.day) >= first, col(ProviderCost.day) < end)
        .group_by(*dimensions)
    )
    return [
        (
            CostRow(
                row.day, row.model, "", row.component,
                Decimal(row.list_usd), Decimal(row.amount_usd),
            ),
            row.rows,
        )
        for row in await tx.execute(statement)
    ]  # fmt: skip
