"""The usage record: the one immutable row that bills one answered request.

`record` is a single statement. The unique key (customer, request) decides races: whoever comes
second finds the row and returns the first bill, so a retried activity, a duplicate start or a
worker given up for dead can never bill twice. Because that statement also queues the meter events,
drops the stored reply and gives back what was reserved, there is no moment at which an answer is
billed but not queued for Stripe, or the reply is gone but not billed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Text, bindparam, delete, func, null, select, true, update
from sqlalchemy import column as sql_column
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlmodel import col

from tallystick.contracts import Bill, RequestKey
from tallystick.ledger import accounts, attempts, outbox
from tallystick.ledger.database import Transaction, entity
from tallystick.ledger.tables import Attempt, MeterEvent, Reservation, UsageRecord
from tallystick.money import from_nano_usd


@dataclass(frozen=True, slots=True)
class NewRecord:
    """What is to be recorded: the columns of the row, and the events it leaves in the outbox."""

    key: RequestKey
    attempt_id: int
    columns: Mapping[str, Any]
    meter_values: Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Recorded:
    """The request's one usage record, and how many meter events still wait to be acknowledged.

    `written` tells whether this very call wrote it.
    """

    record: UsageRecord
    meter_events: int
    written: bool


# --- One statement that does everything, or nothing where the request has a record already --------
_MADE_HERE = ("usage_record_id", "recorded_at", "attempts", "billed_at")
_GIVEN = [name for name in UsageRecord.model_fields if name not in _MADE_HERE]
_ACCOUNT = accounts.share_lock(bindparam("of_customer"))
# Parameters must not bear names of columns: SQLAlchemy would set them in every part that has such
# a column.
_RECORD = (
    insert(UsageRecord)
    .values(
        {
            **{name: bindparam(f"new_{name}") for name in _GIVEN},
            "attempts": attempts.COUNT.scalar_subquery(),
            "billed_at": accounts.billed_at(bindparam("new_served_at"), _ACCOUNT),
        }
    )
    .on_conflict_do_nothing(index_elements=["customer_id", "request_id"])
    .returning(UsageRecord)
    .cte("record")
)
_EVENTS = (
    func.jsonb_to_recordset(bindparam("meter_events", type_=JSONB))
    .table_valued(
        sql_column("identifier", Text), sql_column("meter", Text), sql_column("value", BigInteger)
    )
    .render_derived(name="event", with_types=True)
)
_QUEUE = (
    insert(MeterEvent)
    .from_select(
        [
            "usage_record_id", "customer_id", "request_id", "occurred_at", "billed_at",
            "identifier", "meter", "value",
        ],
        select(
            _RECORD.c.usage_record_id,
            _RECORD.c.customer_id,
            _RECORD.c.request_id,
            _RECORD.c.served_at,
            _RECORD.c.billed_at,
            _EVENTS.c.identifier,
            _EVENTS.c.meter,
            _EVENTS.c.value,
        ).select_from(_RECORD.join(_EVENTS, true())),
    )
    .cte("queued")
)  # fmt: skip
_DROP_REPLY = (
    update(Attempt)
    .where(col(Attempt.attempt_id) == _RECORD.c.attempt_id)
    .values(reply=null())
    .cte("dropped")
)
_RELEASE = (
    delete(Reservation)
    .where(
        col(Reservation.customer_id) == _RECORD.c.customer_id,
        col(Reservation.request_id) == _RECORD.c.request_id,
    )
    .cte("released")
)
_RECORD_ALL = select(_RECORD).add_cte(_QUEUE, _DROP_REPLY, _RELEASE)

_FIND = select(UsageRecord).where(
    col(UsageRecord.customer_id) == bindparam("of_customer"),
    col(UsageRecord.request_id) == bindparam("of_request"),
)


async def record(tx: Transaction, new: NewRecord) -> Recorded:
    """Write the usage record, queue its meter events, drop the stored reply, give back the room.

    Where the request has a record already, that one is returned and nothing is written.
    """
    key = new.key
    events = outbox.events_of(key, new.meter_values)
    given = {
        "customer_id": key.customer_id,
        "request_id": key.request_id,
        "attempt_id": new.attempt_id,
        **new.columns,
    }
    parameters = {
        **{f"new_{name}": given.get(name) for name in _GIVEN},
        **attempts.of_request(key),
        "meter_events": events,
    }
    row = (await tx.execute(_RECORD_ALL, parameters)).one_or_none()
    if row is not None:
        return Recorded(entity(UsageRecord, row), len(events), written=True)
    existing = await recorded(tx, key)
    assert existing is not None  # noqa: S101 - records are never removed
    return existing


async def find(tx: Transaction, key: RequestKey) -> UsageRecord | None:
    """Return the request's usage record, or None while it has none."""
    of_request = {"of_customer": key.customer_id, "of_request": key.request_id}
    row = (await tx.execute(_FIND, of_request)).one_or_none()
    return entity(UsageRecord, row) if row else None


async def recorded(tx: Transaction, key: RequestKey) -> Recorded | None:
    """Return what `record` returned for this request, or None before it did."""
    existing = await find(tx, key)
    return Recorded(existing, await _undelivered(tx, key), written=False) if existing else None


def bill_of(record: UsageRecord) -> Bill:
    """Return the bill as the record keeps it, the same on the first reading and the last."""
    return Bill.model_validate(
        {
            "status": record.status,
            "cost_usd": record.cost_usd,
            "charge_usd": (
                None if record.charge_nano_usd is None else from_nano_usd(record.charge_nano_usd)
            ),
            "price_book": record.price_book,
            "lines": record.lines,
            "explanation": record.explanation,
            "warnings": record.warnings,
        }
    )


async def _undelivered(tx: Transaction, key: RequestKey) -> int:
    statement = (
        select(func.count())
        .select_from(MeterEvent)
        .where(
            col(MeterEvent.customer_id) == key.customer_id,
            col(MeterEvent.request_id) == key.request_id,
            col(MeterEvent.delivered_at).is_(None),
        )
    )
    return (await tx.execute(statement)).scalar_one()
