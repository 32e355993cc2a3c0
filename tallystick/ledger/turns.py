"""Turns for `tallystick.insight`, read from usage: a customer's period, or one conversation.

Adjustments are included, but for `so_far`: it is read while a request is recorded, and the few
corrections there may be are not worth their sum over the whole ledger at that moment.
"""

from collections.abc import Collection
from datetime import datetime
from decimal import Decimal
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by, distinct_on
from sqlmodel import col

from tallystick.contracts import BillLine
from tallystick.insight import ConversationSoFar, Turn
from tallystick.ledger.adjustments import counts
from tallystick.ledger.database import Transaction
from tallystick.ledger.effective import effective
from tallystick.ledger.tables import UsageRecord
from tallystick.money import from_nano_usd
from tallystick.pricing import TOKEN_KINDS

_COLUMNS = (
    "request_id", "conversation_id", "served_at", "model", "lines", "cost_usd", "charge_nano_usd",
    *(f"{kind}_tokens" for kind in TOKEN_KINDS), "web_searches",
)  # fmt: skip
_LINES = TypeAdapter(tuple[BillLine, ...])


async def served(tx: Transaction, customer_id: str, start: datetime, end: datetime) -> list[Turn]:
    """Return what a customer was served in [start, end), oldest first."""
    usage = effective()
    statement = (
        select(*(usage.c[name] for name in _COLUMNS))
        .where(
            usage.c.customer_id == customer_id,
            usage.c.served_at >= start,
            usage.c.served_at < end,
        )
        .order_by(usage.c.served_at, usage.c.usage_record_id)
    )
    return [_turn(row) for row in await tx.execute(statement)]


async def conversation(tx: Transaction, customer_id: str, conversation_id: str) -> list[Turn]:
    """Return all turns of a conversation, oldest first."""
    usage = effective()
    statement = (
        select(*(usage.c[name] for name in _COLUMNS))
        .where(usage.c.customer_id == customer_id, usage.c.conversation_id == conversation_id)
        .order_by(usage.c.served_at, usage.c.usage_record_id)
    )
    return [_turn(row) for row in await tx.execute(statement)]


async def last_before(
    tx: Transaction, customer_id: str, conversation_ids: Collection[str], at: datetime
) -> dict[str, Turn]:
    """Return the last turn before an instant of each of these conversations that has one."""
    usage = effective()
    statement = (
        select(*(usage.c[name] for name in _COLUMNS))
        .ext(distinct_on(usage.c.conversation_id))
        .where(
            usage.c.customer_id == customer_id,
            usage.c.conversation_id.in_(conversation_ids),
            usage.c.served_at < at,
        )
        .order_by(usage.c.conversation_id, usage.c.served_at.desc(), usage.c.usage_record_id.desc())
    )
    return {row.conversation_id: _turn(row) for row in await tx.execute(statement)}


async def so_far(
    tx: Transaction, customer_id: str, conversation_id: str, at: datetime
) -> ConversationSoFar | None:
    """Return what a conversation came to until an instant, as recorded; None before its start."""
    earlier = (
        col(UsageRecord.customer_id) == customer_id,
        col(UsageRecord.conversation_id) == conversation_id,
        col(UsageRecord.served_at) <= at,
    )
    served_at, number = col(UsageRecord.served_at), col(UsageRecord.usage_record_id)
    columns = (getattr(UsageRecord, name) for name in _COLUMNS)
    newest = select(*columns).where(*earlier).order_by(served_at.desc(), number.desc()).limit(1)
    last = (await tx.execute(newest)).one_or_none()
    if last is None:
        return None
    charge = func.coalesce(col(UsageRecord.charge_nano_usd), 0)
    in_order = aggregate_order_by(charge, served_at, number)
    sums = select(
        func.count().label("turns"),
        func.sum(charge).label("charge"),
        func.array_agg(in_order, type_=ARRAY(charge.type))[1].label("first"),
    ).where(*earlier)
    row = (await tx.execute(sums)).one()
    return ConversationSoFar(
        turns=row.turns,
        charge_usd=from_nano_usd(int(row.charge)),
        first_charge_usd=from_nano_usd(int(row.first)),
        last=_turn(last),
    )


def _turn(row: Any) -> Turn:
    return Turn(
        request_id=row.request_id,
        conversation_id=row.conversation_id,
        served_at=row.served_at,
        model=row.model,
        tokens=counts(row),
        lines=_LINES.validate_python(row.lines),
        cost_usd=row.cost_usd,
        charge_usd=_charge(row.charge_nano_usd),
    )


def _charge(nano: Decimal | int | None) -> Decimal | None:
    return None if nano is None else from_nano_usd(int(nano))
