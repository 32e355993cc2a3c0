"""All that the ledger knows of one customer's minute on one meter, for judging it beside Stripe's.

Looked up for the few minutes that differ: the events by themselves, whether anybody is charged by
what the meter counts then, and what was done about the place before.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, select, union
from sqlmodel import col

from tallystick.ledger import accounts, terms
from tallystick.ledger.account_tables import BillingAccount
from tallystick.ledger.database import Transaction, entity
from tallystick.ledger.reconciliation_tables import CollectionCorrection, Discrepancy, Repair
from tallystick.ledger.tables import Customer, MeterEvent
from tallystick.metering import CHARGE_METER
from tallystick.plans.periods import period_at
from tallystick.reconciling.findings import Pair
from tallystick.reconciling.meter_minutes import Collects, Minute, SentEvent


async def stripe_customers(
    tx: Transaction, customer_id: str, start: datetime, end: datetime
) -> list[str]:
    """Return whom a customer is, or was in [start, end), at Stripe."""
    now = select(col(Customer.stripe_customer_id)).where(col(Customer.customer_id) == customer_id)
    then = select(col(MeterEvent.stripe_customer_id)).where(
        col(MeterEvent.customer_id) == customer_id,
        col(MeterEvent.occurred_at) >= start,
        col(MeterEvent.occurred_at) < end,
    )
    found = (await tx.execute(union(now, then))).scalars()
    return sorted(each for each in found if each is not None)


async def read(
    tx: Transaction,
    *,
    customer_id: str,
    stripe_customer_ids: Sequence[str],
    meter: str,
    at: datetime,
    counted: int,
    shown_since: datetime,
) -> Minute:
    """Return the minute that begins at `at`.

    Args:
        tx: the transaction.
        customer_id: whose.
        stripe_customer_ids: whom Stripe was asked about.
        meter: which.
        at: a whole minute.
        counted: what Stripe counts in it.
        shown_since: what was sent or repaired after it has not had the time to show.
    """
    account = await accounts.get(tx, customer_id)
    rows = await _rows(tx, customer_id, meter, at)
    named = [row.stripe_customer_id for row in rows if row.stripe_customer_id is not None]
    return Minute(
        customer_id=customer_id,
        stripe_customer_id=[*stripe_customer_ids, *named][-1],
        meter=meter,
        at=at,
        counted=counted,
        events=[_event(account, row) for row in rows],
        fresh=any(_sent_at(row) > shown_since for row in rows),
        collects=await collects(tx, account, customer_id, meter, at),
        tried=await _tried(tx, customer_id, meter, at, shown_since),
        booked_nano_usd=await _booked(tx, customer_id, meter, at),
    )


async def _rows(tx: Transaction, customer_id: str, meter: str, at: datetime) -> list[MeterEvent]:
    statement = (
        select(MeterEvent)
        .where(
            col(MeterEvent.customer_id) == customer_id,
            col(MeterEvent.meter) == meter,
            col(MeterEvent.occurred_at) >= at,
            col(MeterEvent.occurred_at) < at + timedelta(minutes=1),
            col(MeterEvent.first_sent_at).is_not(None),
        )
        .order_by(col(MeterEvent.meter_event_id))
    )
    return [entity(MeterEvent, row) for row in await tx.execute(statement)]


def _sent_at(row: MeterEvent) -> datetime:
    at = row.delivered_at or row.first_sent_at
    assert at is not None  # noqa: S101 - selected
    return at


def _event(account: BillingAccount | None, row: MeterEvent) -> SentEvent:
    assert row.stripe_customer_id is not None  # noqa: S101 - noted with the first send
    assert row.first_sent_at is not None  # noqa: S101 - selected
    return SentEvent(
        identifier=row.identifier,
        request_id=row.request_id,
        value=row.value,
        stripe_customer_id=row.stripe_customer_id,
        occurred_at=row.occurred_at,
        first_sent_at=row.first_sent_at,
        acknowledged=row.delivered_at is not None,
        on_statement=row.withdrawn_at is not None or is_late(account, row),
    )


def is_late(account: BillingAccount | None, event: MeterEvent) -> bool:
    """Tell whether a later period than its own bills the event: it is late usage there."""
    if account is None or event.billed_at <= event.occurred_at:
        return False
    if event.occurred_at < account.anchor:
        return True
    _, period = period_at(account.anchor, account.time_zone, event.occurred_at)
    return event.billed_at >= period.end


async def collects(
    tx: Transaction, account: BillingAccount | None, customer_id: str, meter: str, at: datetime
) -> Collects:
    """Only pass-through usage has a metered price, and only from when the account begins."""
    if meter != CHARGE_METER or account is None or at < account.anchor:
        return Collects.NOTHING
    standing = await terms.standing(tx, customer_id, at)
    agreed = standing.agreed if standing else None
    if agreed is None or agreed.terms.model != "pass-through":
        return Collects.NOTHING
    return Collects.FINAL_INVOICE if at < account.invoiced_until else Collects.OPEN_INVOICE


# --- What was done before -------------------------------------------------------------------------
def _of_place(customer_id: str, meter: str, at: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        col(Discrepancy.pair) == Pair.OUTBOX_STRIPE,
        col(Discrepancy.customer_id) == customer_id,
        col(Discrepancy.start_at) == at,
        col(Discrepancy.place)["meter"].astext == meter,  # pyright: ignore[reportIndexIssue]
    )


async def _tried(
    tx: Transaction, customer_id: str, meter: str, at: datetime, shown_since: datetime
) -> frozenset[tuple[str, str]]:
    statement = (
        select(col(Repair.repair), col(Repair.subject))
        .join(Discrepancy, col(Discrepancy.discrepancy_id) == col(Repair.discrepancy_id))
        .where(*_of_place(customer_id, meter, at), col(Repair.done_at) <= shown_since)
    )
    return frozenset((row.repair, row.subject) for row in await tx.execute(statement))


async def _booked(tx: Transaction, customer_id: str, meter: str, at: datetime) -> int:
    booked = func.coalesce(func.sum(col(CollectionCorrection.amount_nano_usd)), 0)
    statement = (
        select(booked)
        .select_from(CollectionCorrection)
        .join(
            Discrepancy,
            col(Discrepancy.discrepancy_id) == col(CollectionCorrection.discrepancy_id),
        )
        .where(*_of_place(customer_id, meter, at))
    )
    return int((await tx.execute(statement)).scalar_one())
