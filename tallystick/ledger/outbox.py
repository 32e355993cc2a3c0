"""The metering outbox: what Stripe is to be told, committed together with the usage record.

An event leaves the outbox by `mark_delivered`, or by being withdrawn: then a statement collects its
amount on a line of its own, and Stripe must never count it. `mark_sending` is committed before a
send, so that after a crash the next sender knows how long Stripe has known the identifier: within
a day it may repeat the send, later it must first find out what Stripe counted. It is also where
sending and withdrawing exclude each other: both change the event's row, and whoever comes second
sees what the first has done.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, TextClause, and_, func, or_, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from tallystick.contracts import RequestKey
from tallystick.ledger.account_tables import BillingAccount, MeterRejection
from tallystick.ledger.database import Transaction, entity
from tallystick.ledger.tables import CHARGES, Customer, MeterEvent
from tallystick.metering import CHARGE_METER, meter_identifier, repairs, sent_identifier
from tallystick.plans.periods import Period


@dataclass(frozen=True, slots=True)
class Books:
    """Where the boundaries of an account lie, and how far it is closed and invoiced."""

    anchor: datetime
    time_zone: str
    closed_until: datetime
    invoiced_until: datetime


@dataclass(frozen=True, slots=True)
class PendingEvent:
    """An event that Stripe has not acknowledged. `value` is a count or whole nano-USD.

    `stripe_customer_id` is the mapping as it is now, None while the customer has none. `billed_at`
    says in which period its charge is billed, `books` of which account; None without one.
    """

    meter_event_id: int
    key: RequestKey
    identifier: str
    meter: str
    value: int
    occurred_at: datetime
    first_sent_at: datetime | None
    stripe_customer_id: str | None
    billed_at: datetime
    books: Books | None = None


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
    usage_record_id: int | None,
    key: RequestKey,
    occurred_at: datetime,
    billed_at: datetime,
    values: Sequence[tuple[str, int]],
) -> int:
    """Put events, (meter, value) each, into the outbox; returns how many there are.

    For a record that has none yet, or without one for records of a batch that were written just
    now; all of them used and billed at these instants. A new record of its own brings its events
    along (`ledger.usage`).
    """
    rows = [
        {
            "usage_record_id": usage_record_id,
            "customer_id": key.customer_id,
            "request_id": key.request_id,
            "occurred_at": occurred_at,
            "billed_at": billed_at,
            **event,
        }
        for event in events_of(key, values)
    ]
    if rows:
        await tx.execute(insert(MeterEvent), rows)
    return len(rows)


_WAITING = (col(MeterEvent.delivered_at).is_(None), col(MeterEvent.withdrawn_at).is_(None))


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
            col(MeterEvent.billed_at),
            col(BillingAccount.anchor),
            col(BillingAccount.time_zone),
            col(BillingAccount.closed_until),
            col(BillingAccount.invoiced_until),
        )
        .join(Customer, col(Customer.customer_id) == col(MeterEvent.customer_id))
        .outerjoin(
            BillingAccount,
            and_(
                col(BillingAccount.customer_id) == col(MeterEvent.customer_id),
                col(MeterEvent.meter) == CHARGE_METER,  # no other has a price
            ),
        )
        .where(
            tuple_(col(MeterEvent.customer_id), col(MeterEvent.request_id)).in_(
                [(key.customer_id, key.request_id) for key in keys]
            ),
            *_WAITING,
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
            billed_at=row.billed_at,
            books=Books(row.anchor, row.time_zone, row.closed_until, row.invoiced_until)
            if row.anchor is not None
            else None,
        )
        for row in await tx.execute(statement)
    ]


async def mark_sending(tx: Transaction, events: Sequence[PendingEvent], at: datetime) -> set[int]:
    """Note that these events are sent, the first send and the Stripe customer it names.

    To be committed before the call. Returns the ids of those that may be sent: what was withdrawn
    in the meantime may not.
    """
    by_customer: dict[str | None, list[int]] = {}
    for event in events:
        by_customer.setdefault(event.stripe_customer_id, []).append(event.meter_event_id)
    ready: set[int] = set()
    for stripe_customer_id, ids in by_customer.items():
        statement = (
            update(MeterEvent)
            .where(col(MeterEvent.meter_event_id).in_(ids), *_WAITING)
            .values(
                first_sent_at=func.coalesce(col(MeterEvent.first_sent_at), at),
                stripe_customer_id=stripe_customer_id,
                parked_at=None,
                parked_reason=None,
            )
            .returning(col(MeterEvent.meter_event_id))
        )
        ready.update(row.meter_event_id for row in await tx.execute(statement))
    return ready


async def suppose_sent(tx: Transaction, identifier: str) -> None:
    """Have an event treated as one whose answer was lost: it may have been sent when it was used.

    To a customer without a Stripe customer nothing was sent, and nothing changes.
    """
    mapped = col(Customer.stripe_customer_id)
    await tx.execute(
        update(MeterEvent)
        .where(
            col(MeterEvent.identifier) == identifier,
            col(MeterEvent.first_sent_at).is_(None),
            col(Customer.customer_id) == col(MeterEvent.customer_id),
            mapped.is_not(None),
        )
        .values(first_sent_at=col(MeterEvent.occurred_at), stripe_customer_id=mapped)
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
    statement = select(
        func.coalesce(func.sum(value).filter(col(MeterEvent.delivered_at).is_not(None)), 0).label(
            "delivered"
        ),
        func.coalesce(func.sum(value).filter(*_WAITING), 0).label("undelivered"),
    ).where(
        col(MeterEvent.stripe_customer_id) == stripe_customer_id,
        col(MeterEvent.meter) == meter,
        col(MeterEvent.first_sent_at).is_not(None),
        col(MeterEvent.occurred_at) >= start,
        col(MeterEvent.occurred_at) < end,
    )
    row = (await tx.execute(statement)).one()
    return WindowSums(int(row.delivered), int(row.undelivered))


# --- Charges of one period ------------------------------------------------------------------------
# Those of usage served in the period and billed in it; what was served before is late usage, which
# a statement collects by items.
def _charges_of(customer_id: str, period: Period) -> tuple[ColumnElement[bool] | TextClause, ...]:
    return (
        col(MeterEvent.customer_id) == customer_id,
        col(MeterEvent.occurred_at) >= period.start,
        text(CHARGES),  # as the index has it, which a parameter would not be known to be
        col(MeterEvent.billed_at) < period.end,
    )


@dataclass(frozen=True, slots=True)
class WaitingCharges:
    """Charge events of a period that Stripe has not acknowledged: how many, how many of them are
    on their way (sent, and not parked), and why one of the others is parked."""

    count: int
    on_their_way: int
    parked_reason: str | None


async def waiting_charges(tx: Transaction, customer_id: str, period: Period) -> WaitingCharges:
    """Return what of the period's charges Stripe has not acknowledged."""
    on_its_way = and_(
        col(MeterEvent.first_sent_at).is_not(None), col(MeterEvent.parked_at).is_(None)
    )
    statement = select(
        func.count().label("events"),
        func.count().filter(on_its_way).label("on_their_way"),
        func.max(col(MeterEvent.parked_reason)).label("parked_reason"),
    ).where(*_charges_of(customer_id, period), *_WAITING)
    row = (await tx.execute(statement)).one()
    return WaitingCharges(row.events, row.on_their_way, row.parked_reason)


async def withdraw_outside(
    tx: Transaction, customer_id: str, period: Period, collected: Period, at: datetime
) -> int:
    """Withdraw the period's charges that lie outside the span that Stripe collects.

    What Stripe counts there is on no invoice of its own. Spans are compared as Stripe does, in
    whole seconds. Returns how many were withdrawn now.
    """
    second = func.date_trunc("second", col(MeterEvent.occurred_at))
    outside = or_(second < collected.start, second >= collected.end)
    return await _withdraw(tx, at, *_charges_of(customer_id, period), outside)


async def withdraw_waiting(tx: Transaction, customer_id: str, period: Period, at: datetime) -> int:
    """Withdraw the period's charges that were never sent, or are parked; returns how many.

    For use when Stripe's summaries have shown that it counts none of them.
    """
    stopped = or_(col(MeterEvent.first_sent_at).is_(None), col(MeterEvent.parked_at).is_not(None))
    return await _withdraw(
        tx, at, *_charges_of(customer_id, period), stopped, col(MeterEvent.delivered_at).is_(None)
    )


async def _withdraw(tx: Transaction, at: datetime, *which: ColumnElement[bool] | TextClause) -> int:
    statement = (
        update(MeterEvent)
        .where(*which, col(MeterEvent.withdrawn_at).is_(None))
        .values(withdrawn_at=at, parked_at=None, parked_reason=None)
    )
    return (await tx.execute(statement)).rowcount


# --- Decided by a person --------------------------------------------------------------------------
async def parked_of(tx: Transaction, key: RequestKey, *, locked: bool = False) -> list[MeterEvent]:
    """Return what is parked of a request, oldest first; locked, nobody sends it meanwhile."""
    statement = (
        select(MeterEvent)
        .where(
            col(MeterEvent.customer_id) == key.customer_id,
            col(MeterEvent.request_id) == key.request_id,
            col(MeterEvent.parked_at).is_not(None),
            *_WAITING,
        )
        .order_by(col(MeterEvent.meter_event_id))
    )
    rows = await tx.execute(statement.with_for_update() if locked else statement)
    return [entity(MeterEvent, row) for row in rows]


async def withdraw(tx: Transaction, meter_event_ids: Sequence[int], at: datetime) -> int:
    """Withdraw events that Stripe has not acknowledged; returns how many were withdrawn now.

    For use on locked ones of which it is certain that Stripe counts none.
    """
    ids = col(MeterEvent.meter_event_id).in_(meter_event_ids)
    return await _withdraw(tx, at, ids, col(MeterEvent.delivered_at).is_(None))


# --- Known to Stripe, and not counted -------------------------------------------------------------
async def reject(
    tx: Transaction, *, reported: str, code: str, message: str, event_id: str, at: datetime
) -> RequestKey | None:
    """Note that Stripe has rejected an event that it took, and park it; returns whose it is.

    The event is as if never sent, under another identifier: whether a rejected one may be used
    again is not documented (facts on Stripe, 'Meters'). Reported again, nothing changes.

    Args:
        tx: the transaction.
        reported: what the error report names: an identifier, or the idempotency key of a send.
        code: why, in Stripe's vocabulary.
        message: why, in Stripe's words.
        event_id: the event of Stripe's that carried the report.
        at: the instant it was rejected.
    """
    identifier = sent_identifier(reported)
    rejection = insert(MeterRejection).values(
        identifier=identifier, code=code, event_id=event_id, message=message, rejected_at=at
    )
    await tx.execute(rejection.on_conflict_do_nothing())
    why = f"Stripe rejected it after its receipt: {code}: {message}"
    await rename(tx, identifier, why, at)
    event = await find(tx, identifier)
    return RequestKey(customer_id=event.customer_id, request_id=event.request_id) if event else None


async def rename(tx: Transaction, identifier: str, why: str, at: datetime) -> bool:
    """Give a sent event its next identifier, as if never sent, and park it; whether that was so.

    For one that Stripe knows by its present identifier and will never count. Whoever comes second
    finds it renamed and changes nothing.
    """
    names = repairs(identifier)
    if identifier not in names[:-1]:
        return False
    statement = (
        update(MeterEvent)
        .where(col(MeterEvent.identifier) == identifier, col(MeterEvent.first_sent_at).is_not(None))
        .values(
            identifier=names[names.index(identifier) + 1],
            stripe_customer_id=None,
            first_sent_at=None,
            delivered_at=None,
            parked_at=at,
            parked_reason=why,
        )
    )
    return (await tx.execute(statement)).rowcount > 0


async def find(tx: Transaction, identifier: str) -> MeterEvent | None:
    """Return the event that has, had or will have this identifier; None where there is none."""
    statement = select(MeterEvent).where(col(MeterEvent.identifier).in_(repairs(identifier)))
    row = (await tx.execute(statement)).one_or_none()
    return entity(MeterEvent, row) if row else None
