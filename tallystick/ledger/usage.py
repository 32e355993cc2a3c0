"""The usage record: the one immutable row that bills one answered request.

`record` is a single transaction. The unique key (customer, request) decides races: whoever comes
second finds the row and returns the first bill, so a retried activity, a duplicate start or a
worker given up for dead can never bill twice. Because the meter events are committed with the
record and the stored reply is dropped with it, there is no moment at which an answer is billed but
not queued for Stripe, or the reply is gone but not billed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from tallystick.contracts import Bill, RequestKey
from tallystick.ledger import attempts, outbox, reservations
from tallystick.ledger.database import Transaction, entity
from tallystick.ledger.tables import MeterEvent, UsageRecord
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
    """The request's one usage record, and how many meter events still wait to be acknowledged."""

    record: UsageRecord
    meter_events: int


# Built once: building them costs more than running them.
_INSERT = (
    insert(UsageRecord)
    .values({"attempts": attempts.COUNT.scalar_subquery()})
    .on_conflict_do_nothing(index_elements=["customer_id", "request_id"])
    .returning(UsageRecord)
)
_FIND = select(UsageRecord).where(
    col(UsageRecord.customer_id) == bindparam("of_customer"),
    col(UsageRecord.request_id) == bindparam("of_request"),
)


async def record(tx: Transaction, new: NewRecord) -> Recorded:
    """Write the usage record, queue its meter events, drop the stored reply, give back the room.

    Where the request has a record already, that one is returned and nothing is written.
    """
    key = new.key
    columns = {
        "customer_id": key.customer_id,
        "request_id": key.request_id,
        "attempt_id": new.attempt_id,
        **attempts.of_request(key),
        **new.columns,
    }
    row = (await tx.execute(_INSERT, columns)).one_or_none()
    if row is None:
        existing = await recorded(tx, key)
        assert existing is not None  # noqa: S101 - records are never removed
        return existing
    written = entity(UsageRecord, row)
    assert written.usage_record_id is not None  # noqa: S101 - the database made it
    queued = await outbox.enqueue(
        tx,
        usage_record_id=written.usage_record_id,
        key=key,
        occurred_at=written.served_at,
        values=new.meter_values,
    )
    await attempts.drop_reply(tx, new.attempt_id)
    # In this transaction, so that the charge counts from the moment its reservation does not.
    await reservations.release(tx, key)
    return Recorded(written, queued)


async def find(tx: Transaction, key: RequestKey) -> UsageRecord | None:
    """Return the request's usage record, or None while it has none."""
    of_request = {"of_customer": key.customer_id, "of_request": key.request_id}
    row = (await tx.execute(_FIND, of_request)).one_or_none()
    return entity(UsageRecord, row) if row else None


async def recorded(tx: Transaction, key: RequestKey) -> Recorded | None:
    """Return what `record` returned for this request, or None before it did."""
    existing = await find(tx, key)
    return Recorded(existing, await _undelivered(tx, key)) if existing else None


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
