"""The metering outbox: what Stripe is to be told, committed together with the usage record.

An event leaves the outbox only by `mark_delivered`. `mark_sending` is committed before the first
send, so that after a crash the next sender knows how long Stripe has known the identifier: within
a day it may repeat the send, later it must first find out what Stripe counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from tallystick.contracts import RequestKey
from tallystick.ledger.database import Transaction
from tallystick.ledger.tables import Customer, MeterEvent
from tallystick.metering import meter_identifier


@dataclass(frozen=True, slots=True)
class PendingEvent:
    """An event that Stripe has not acknowledged. `value` is a count or whole nano-USD.

    `stripe_customer_id` is the mapping as it is now, None while the customer has none.
    """

    meter_event_id: int
    key: RequestKey
    identifier: str
    meter: str
    value: int
    occurred_at: datetime
    first_sent_at: datetime | None
    stripe_customer_id: str | None


def events_of(key: RequestKey, values: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
    """Return a request's events, (meter, value) each, as columns; zero values are left out."""
    return [
        {
            "identifier": meter_identifier(key.customer_id, key.request_id, meter),
            "meter": meter,
            "value": value,
        }
        for meter, value in values
        if value
    ]


async def enqueue(
    tx: Transaction,
    *,
    usage_record_id: int,
    key: RequestKey,
    occurred_at: datetime,
    values: Sequence[tuple[str, int]],
) -> int:
    """Put the record's events, (meter, value) each, into the outbox; returns how many there are.

    For a record that has none yet. A new record brings its events along (`ledger.usage`).
    """
    rows = [
        {
            "usage_record_id": usage_record_id,
            "customer_id": key.customer_id,
            "request_id": key.request_id,
            "occurred_at": occurred_at,
            **event,
        }
        for event in events_of(key, values)
    ]
    if rows:
        await tx.execute(insert(MeterEvent), rows)
    return len(rows)


async def pending(tx: Transaction, keys: Sequence[RequestKey]) -> list[PendingEvent]:
    """Return the undelivered events of these requests, oldest first, parked ones included."""
    statement = (
        select(
            col(MeterEvent.meter_event_id),
            col(MeterEvent.customer_id),
            col(MeterEvent.request_id),
            col(MeterEvent.identifier),
            col(MeterEvent.meter),
            col(MeterEvent.value),
            col(MeterEvent.occurred_at),
            col(MeterEvent.first_sent_at),
            func.coalesce(
                col(MeterEvent.stripe_customer_id), col(Customer.stripe_customer_id)
            ).label("stripe_customer_id"),
        )
        .join(Customer, col(Customer.customer_id) == col(MeterEvent.customer_id))
        .where(
            tuple_(col(MeterEvent.customer_id), col(MeterEvent.request_id)).in_(
                [(key.customer_id, key.request_id) for key in keys]
            ),
            col(MeterEvent.delivered_at).is_(None),
        )
        .order_by(col(MeterEvent.meter_event_id))
    )
    return [
        PendingEvent(
            meter_event_id=row.meter_event_id,
            key=RequestKey(customer_id=row.customer_id, request_id=row.request_id),
            identifier=row.identifier,
            meter=row.meter,
            value=row.value,
            occurred_at=row.occurred_at,
            first_sent_at=row.first_sent_at,
            stripe_customer_id=row.stripe_customer_id,
        )
        for row in await tx.execute(statement)
    ]


async def mark_sending(tx: Transaction, events: Sequence[PendingEvent], at: datetime) -> None:
    """Note the first send and the Stripe customer it names. To be committed before the call."""
    fresh = [event for event in events if event.first_sent_at is None]
    by_customer: dict[str | None, list[int]] = {}
    for event in fresh:
        by_customer.setdefault(event.stripe_customer_id, []).append(event.meter_event_id)
    for stripe_customer_id, ids in by_customer.items():
        await _update(
            tx,
            ids,
            first_sent_at=func.coalesce(col(MeterEvent.first_sent_at), at),
            stripe_customer_id=stripe_customer_id,
            parked_at=None,
            parked_reason=None,
        )


async def mark_delivered(tx: Transaction, meter_event_ids: Sequence[int], at: datetime) -> None:
    """Note that Stripe has acknowledged these events."""
    await _update(tx, meter_event_ids, delivered_at=at, parked_at=None, parked_reason=None)


async def park(tx: Transaction, meter_event_ids: Sequence[int], reason: str, at: datetime) -> None:
    """Note that these events wait for a person, and why."""
    await _update(tx, meter_event_ids, parked_at=at, parked_reason=reason)


async def _update(tx: Transaction, meter_event_ids: Sequence[int], **values: Any) -> None:
    await tx.execute(
        update(MeterEvent)
        .where(
            col(MeterEvent.meter_event_id).in_(meter_event_ids),
            col(MeterEvent.delivered_at).is_(None),
        )
        .values(**values)
    )


@dataclass(frozen=True, slots=True)
class WindowSums:
    """Sums of one customer's events on one meter in a window of time, by what is known of them."""

    delivered: int
    undelivered: int


async def sums_in_window(
    tx: Transaction, *, stripe_customer_id: str, meter: str, start: datetime, end: datetime
) -> WindowSums:
    """Add up what was sent for the window [start, end): acknowledged, and not (yet)."""
    value = col(MeterEvent.value)
    is_delivered = col(MeterEvent.delivered_at).is_not(None)
    statement = select(
        func.coalesce(func.sum(value).filter(is_delivered), 0).label("delivered"),
        func.coalesce(func.sum(value).filter(~is_delivered), 0).label("undelivered"),
    ).where(
        col(MeterEvent.stripe_customer_id) == stripe_customer_id,
        col(MeterEvent.meter) == meter,
        col(MeterEvent.first_sent_at).is_not(None),
        col(MeterEvent.occurred_at) >= start,
        col(MeterEvent.occurred_at) < end,
    )
    row = (await tx.execute(statement)).one()
    return WindowSums(int(row.delivered), int(row.undelivered))
