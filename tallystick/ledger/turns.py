"""Turns for `tallystick.insight`, read from usage: a customer's period, or one conversation.

Adjustments are included, but for `so_far`: it is read while a request is recorded, and the few
corrections there may be are not worth their sum over the whole ledger at that moment.
"""

from collections.abc import AsyncGenerator, Collection
from datetime import datetime
from decimal import Decimal
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import BigInteger, ColumnElement, bindparam, func, or_, select
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by, distinct_on
from sqlmodel import col

from tallystick.contracts import BillLine
from tallystick.insight import ConversationSoFar, Turn
from tallystick.ledger.adjustments import counts
from tallystick.ledger.database import Transaction
from tallystick.ledger.effective import effective
from tallystick.ledger.tables import UsageRecord
from tallystick.money import from_nano_usd
from tallystick.pricing import TOKEN_KINDS, TokenKind

_COLUMNS = (
    "request_id", "conversation_id", "served_at", "model", "lines", "cost_usd", "charge_nano_usd",
    *(f"{kind}_tokens" for kind in TOKEN_KINDS), "web_searches",
)  # fmt: skip
_PROMPT = tuple(f"{kind}_tokens" for kind in TOKEN_KINDS if kind is not TokenKind.OUTPUT)
_LINES = TypeAdapter(tuple[BillLine, ...])


def _has_prompt(usage: Any) -> ColumnElement[bool]:
    """Return the condition that a turn has a prompt to go on from (`insight.conversations`)."""
    return or_(*(getattr(usage, name) > 0 for name in _PROMPT))


# Built once: a request in a conversation waits for them.
_EARLIER = (
    col(UsageRecord.customer_id) == bindparam("customer"),
    col(UsageRecord.conversation_id) == bindparam("conversation"),
    col(UsageRecord.served_at) <= bindparam("at"),
    _has_prompt(UsageRecord),
)
_ORDER = (col(UsageRecord.served_at), col(UsageRecord.usage_record_id))
_CHARGE = func.coalesce(col(UsageRecord.charge_nano_usd), 0)
_NEWEST = (
    select(*(getattr(UsageRecord, name) for name in _COLUMNS))
    .where(*_EARLIER)
    .order_by(*(column.desc() for column in _ORDER))
    .limit(1)
)
_SUMS = select(
    func.count().label("turns"),
    func.sum(_CHARGE).label("charge"),
    func.array_agg(aggregate_order_by(_CHARGE, *_ORDER), type_=ARRAY(BigInteger))[1].label("first"),
).where(*_EARLIER)


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


async def in_conversations(
    tx: Transaction, customer_id: str, start: datetime, end: datetime
) -> AsyncGenerator[list[Turn], None]:
    """Yield each conversation's turns that are billed in [start, end) and were served from `start`.

    One conversation after the other, oldest turn first, streamed: memory holds one at a time.
    """
    usage = effective()
    statement = (
        select(*(usage.c[name] for name in _COLUMNS))
        .where(
            usage.c.customer_id == customer_id,
            usage.c.conversation_id.is_not(None),
            usage.c.served_at >= start,
            usage.c.billed_at < end,
        )
        .order_by(usage.c.conversation_id, usage.c.served_at, usage.c.usage_record_id)
    )
    turns: list[Turn] = []
    async for row in await tx.stream(statement):
        turn = _turn(row)
        if turns and turns[-1].conversation_id != turn.conversation_id:
            yield turns
            turns = []
        turns.append(turn)
    if turns:
        yield turns


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
            _has_prompt(usage.c),
        )
        .order_by(usage.c.conversation_id, usage.c.served_at.desc(), usage.c.usage_record_id.desc())
    )
    return {row.conversation_id: _turn(row) for row in await tx.execute(statement)}


async def so_far(
    tx: Transaction, customer_id: str, conversation_id: str, at: datetime
) -> ConversationSoFar | None:
    """Return what a conversation came to until an instant, as recorded; None before its start."""
    which = {"customer": customer_id, "conversation": conversation_id, "at": at}
    last = (await tx.execute(_NEWEST, which)).one_or_none()
    if last is None:
        return None
    sums = (await tx.execute(_SUMS, which)).one()
    return ConversationSoFar(
        turns=sums.turns,
        charge_usd=from_nano_usd(int(sums.charge)),
        first_charge_usd=from_nano_usd(int(sums.first)),
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
