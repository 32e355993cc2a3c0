"""The inbox of Stripe's events: put in before Stripe is answered, taken out once looked at.

Every step is a mark on the event's one row, so whoever is killed between two steps leaves an event
that the next one finds: received (the webhook is acknowledged after this commit), assigned to a
customer, forwarded to that customer's cycle, applied. The event's own id is the key: a redelivery,
a second endpoint and the back-fill find the row there and change nothing. Assigning is committed
before a cycle is told, or it could look before there is something to see.

A parked event waits for a person, and everything else leaves it alone.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from tallystick.ledger.account_tables import BillingAccount, EventListing, Invoice, StripeEvent
from tallystick.ledger.database import Transaction
from tallystick.ledger.notices import raise_notice
from tallystick.ledger.tables import Customer
from tallystick.stripe_events import (
    METER_REPORTS,
    Envelope,
    Form,
    UnreadableEventError,
    look_of,
)

NO_CONCERN = "nothing here depends on events of this type"
NO_CUSTOMER = "it concerns no customer of ours"
UNREADABLE = "unknown"
"""Type and form of an event that could not be read."""

_COLUMNS = (
    col(StripeEvent.event_id),
    col(StripeEvent.type),
    col(StripeEvent.form),
    col(StripeEvent.object_id),
    col(StripeEvent.stripe_customer_id),
    col(StripeEvent.customer_id),
    col(StripeEvent.received_at),
)
_WAITS = (col(StripeEvent.applied_at).is_(None), col(StripeEvent.parked_at).is_(None))
_OLDEST_FIRST = (col(StripeEvent.received_at), col(StripeEvent.event_id))


@dataclass(frozen=True, slots=True)
class WaitingEvent:
    """An event that has not been applied. `customer_id` is None until it is known whose it is."""

    event_id: str
    type: str
    form: str
    object_id: str | None
    stripe_customer_id: str | None
    customer_id: str | None
    received_at: datetime

    @property
    def place(self) -> tuple[datetime, str]:
        """Where it stands in the inbox, for reading on from there."""
        return self.received_at, self.event_id


async def receive(tx: Transaction, events: Sequence[Envelope], at: datetime) -> int:
    """Put in what is not there yet; returns how many events those are.

    What nothing depends on is done with at once. One statement, so that a webhook can commit it by
    itself (`Ledger.each`).
    """
    rows: list[dict[str, Any]] = []
    for event in events:
        idle = look_of(event.type) is None
        done = {"applied_at": at if idle else None, "reason": NO_CONCERN if idle else None}
        rows.append({**asdict(event), "received_at": at, **done})
    if not rows:
        return 0
    return await _add(tx, rows)


async def park_unreadable(tx: Transaction, error: UnreadableEventError, at: datetime) -> None:
    """Keep that something came which cannot be read, and tell operators of it, once."""
    row = {
        "event_id": error.event_id,
        "type": UNREADABLE,
        "form": UNREADABLE,
        "created_at": at,
        "received_at": at,
    }
    if await _add(tx, [row]):
        await park(tx, [error.event_id], None, f"it cannot be read: {error}", at)


async def park(
    tx: Transaction, event_ids: Sequence[str], customer_id: str | None, reason: str, at: datetime
) -> None:
    """Leave waiting events to a person, and tell operators which and why."""
    await _mark(tx, event_ids, parked_at=at, reason=reason)
    for event_id in event_ids:
        await raise_notice(
            tx,
            customer_id,
            key=f"stripe-event-parked:{event_id}",
            kind="stripe_event_parked",
            audience="operator",
            message=f"Stripe's event {event_id} was not applied: {reason}.",
            facts={"event_id": event_id, "reason": reason},
            at=at,
        )


async def retry_parked(tx: Transaction, event_id: str) -> bool:
    """Let a parked event wait again; False where none is parked, or it could not be read."""
    return await _unpark(
        tx, event_id, col(StripeEvent.type) != UNREADABLE, forwarded_at=None, reason=None
    )


async def skip_parked(tx: Transaction, event_id: str, reason: str, at: datetime) -> bool:
    """Be done with a parked event and keep why; False where none is parked."""
    return await _unpark(tx, event_id, applied_at=at, reason=f"skipped: {reason}")


async def _unpark(
    tx: Transaction, event_id: str, *only: ColumnElement[bool], **values: Any
) -> bool:
    statement = (
        update(StripeEvent)
        .where(
            col(StripeEvent.event_id) == event_id, col(StripeEvent.parked_at).is_not(None), *only
        )
        .values(parked_at=None, **values)
    )
    return (await tx.execute(statement)).rowcount > 0


async def assign(
    tx: Transaction, *, after: tuple[datetime, str] | None, limit: int
) -> list[WaitingEvent]:
    """Find out from the ledger whose waiting events are; returns them, oldest first.

    Those whose customer the ledger does not know come back without one. What somebody else is
    assigning at this moment is passed over. Meter reports are nobody's and not among them.
    """
    claimed = (
        select(col(StripeEvent.event_id))
        .where(
            *_WAITS,
            col(StripeEvent.customer_id).is_(None),
            col(StripeEvent.type).not_in(METER_REPORTS),
        )
        .order_by(*_OLDEST_FIRST)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    if after is not None:
        claimed = claimed.where(tuple_(*_OLDEST_FIRST) > tuple_(*after))
    owner = func.coalesce(
        select(col(Customer.customer_id))
        .where(col(Customer.stripe_customer_id) == col(StripeEvent.stripe_customer_id))
        .scalar_subquery(),
        select(col(Invoice.customer_id))
        .where(col(Invoice.stripe_invoice_id) == col(StripeEvent.object_id))
        .scalar_subquery(),
        select(col(BillingAccount.customer_id))
        .where(col(BillingAccount.stripe_subscription_id) == col(StripeEvent.object_id))
        .scalar_subquery(),
    )
    statement = (
        update(StripeEvent)
        .where(col(StripeEvent.event_id).in_(claimed.scalar_subquery()))
        .values(customer_id=owner)
        .returning(*_COLUMNS)
    )
    found = [_waiting(row) for row in await tx.execute(statement)]
    return sorted(found, key=lambda event: event.place)


async def adopt(tx: Transaction, event_ids: Sequence[str], stripe_customer_id: str) -> str | None:
    """Note whose these events are at Stripe; returns which customer of ours that is, if any."""
    statement = select(col(Customer.customer_id)).where(
        col(Customer.stripe_customer_id) == stripe_customer_id
    )
    customer_id = (await tx.execute(statement)).scalar_one_or_none()
    await _mark(tx, event_ids, stripe_customer_id=stripe_customer_id, customer_id=customer_id)
    return customer_id


async def claim_news(tx: Transaction, limit: int) -> list[WaitingEvent]:
    """Return assigned events of which no cycle was told, oldest first, and keep others from them.

    The claim lasts as long as the transaction, in which the cycles are told and `mark_forwarded`
    is called. What another one has claimed is passed over.
    """
    statement = (
        select(*_COLUMNS)
        .where(
            *_WAITS,
            col(StripeEvent.customer_id).is_not(None),
            col(StripeEvent.forwarded_at).is_(None),
        )
        .order_by(*_OLDEST_FIRST)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [_waiting(row) for row in await tx.execute(statement)]


async def mark_forwarded(tx: Transaction, event_ids: Sequence[str], at: datetime) -> None:
    """Note that the cycle of these events' customer has been told."""
    await _mark(tx, event_ids, forwarded_at=at)


async def of_customer(tx: Transaction, customer_id: str, limit: int) -> list[WaitingEvent]:
    """Return the customer's events that wait to be applied, oldest first."""
    return await _waiting_where(tx, col(StripeEvent.customer_id) == customer_id, limit)


async def meter_reports(tx: Transaction, limit: int) -> list[WaitingEvent]:
    """Return reports of rejected meter events that wait to be read, oldest first."""
    return await _waiting_where(tx, col(StripeEvent.type).in_(METER_REPORTS), limit)


async def mark_applied(
    tx: Transaction, event_ids: Sequence[str], at: datetime, *, reason: str | None = None
) -> int:
    """Note that these events were looked at, or why not; returns how many still waited for it.

    To be committed with what the look changed.
    """
    return await _mark(tx, event_ids, applied_at=at, reason=reason)


@dataclass(frozen=True, slots=True)
class Depth:
    """How full the inbox is: events that wait, since when the oldest does, and parked ones."""

    waiting: int
    oldest_received_at: datetime | None
    parked: int


async def depth(tx: Transaction) -> Depth:
    """Return how full the inbox is at this moment."""
    waits = col(StripeEvent.parked_at).is_(None)
    statement = select(
        func.count().filter(waits).label("waiting"),
        func.min(col(StripeEvent.received_at)).filter(waits).label("oldest"),
        func.count().filter(~waits).label("parked"),
    ).where(col(StripeEvent.applied_at).is_(None))
    row = (await tx.execute(statement)).one()
    return Depth(row.waiting, row.oldest, row.parked)


async def read_until(tx: Transaction, form: Form) -> datetime | None:
    """Return up to when Stripe's list of such events has been read.

    Where it was never read that is the opening of the first account, before which nothing at
    Stripe can concern us; None while there is no account.
    """
    statement = select(
        func.coalesce(
            select(col(EventListing.read_until))
            .where(col(EventListing.form) == form)
            .scalar_subquery(),
            select(func.min(col(BillingAccount.opened_at))).scalar_subquery(),
        )
    )
    return (await tx.execute(statement)).scalar_one()


async def note_read(tx: Transaction, form: Form, until: datetime) -> None:
    """Note that Stripe's list has been read up to an instant; it never goes back."""
    statement = insert(EventListing).values(form=form, read_until=until)
    await tx.execute(
        statement.on_conflict_do_update(
            index_elements=["form"],
            set_={
                "read_until": func.greatest(
                    col(EventListing.read_until), statement.excluded.read_until
                )
            },
        )
    )


# Built once: every webhook waits for it, and building costs more than running.
_ADD = insert(StripeEvent).on_conflict_do_nothing().returning(col(StripeEvent.event_id))


async def _add(tx: Transaction, rows: list[dict[str, Any]]) -> int:
    return len((await tx.execute(_ADD, rows)).all())


async def _waiting_where(
    tx: Transaction, condition: ColumnElement[bool], limit: int
) -> list[WaitingEvent]:
    statement = select(*_COLUMNS).where(*_WAITS, condition).order_by(*_OLDEST_FIRST).limit(limit)
    return [_waiting(row) for row in await tx.execute(statement)]


async def _mark(tx: Transaction, event_ids: Sequence[str], **values: Any) -> int:
    """Mark those of the events that still wait; returns how many."""
    statement = (
        update(StripeEvent)
        .where(col(StripeEvent.event_id).in_(event_ids), *_WAITS)
        .values(**values)
    )
    return (await tx.execute(statement)).rowcount


def _waiting(row: Row[*tuple[Any, ...]]) -> WaitingEvent:
    return WaitingEvent(**row._mapping)  # pyright: ignore[reportPrivateUsage]
