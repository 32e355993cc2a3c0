"""Reservations: room kept free under a customer's limits while a request is in flight.

Whoever reserves holds the customer's row locked (`customers.lock`), so decisions about one customer
are made one after the other. What is spent and what is reserved is read by a single statement: a
request that is recorded meanwhile is seen as reserved or as spent, never as neither. Together they
make sure that parallel requests cannot spend the same room twice.

A request gives its room back when it is recorded or fails. One that was terminated runs no code
any more; its reservation lapses a day after it was last admitted or called.
"""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Select, bindparam, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from tallystick.contracts import RequestKey
from tallystick.ledger.account_tables import BillingAccount
from tallystick.ledger.database import Transaction
from tallystick.ledger.tables import Adjustment, Attempt, Reservation, UsageRecord
from tallystick.money import from_nano_usd
from tallystick.plans.periods import Period, calendar_month, period_at

LAPSE = timedelta(hours=24)
"""A request waits this long for its call (`CALL_PATIENCE` in workflows.claude_request), and a
parked one calls again every hour: without an attempt for a whole day, nobody is there any more."""


class CapPeriod(NamedTuple):
    """What a spend cap covers: a billing period, or a calendar month without an account."""

    name: str
    period: Period


def cap_period(account: BillingAccount | None, time_zone: str, at: datetime) -> CapPeriod:
    """Return the span around the instant `at` that a spend cap covers.

    Args:
        account: the customer's, if it has one; its statements then show what the cap counted.
        time_zone: the customer's, which places calendar months.
        at: the instant.
    """
    if account is None or at < account.anchor:
        return CapPeriod("month", calendar_month(at, time_zone))
    return CapPeriod("period", period_at(account.anchor, account.time_zone, at)[1])


class Used(NamedTuple):
    """What is taken of a limit, in US dollars of charge.

    Spent is what was recorded, with all adjustments; usage without a price counts nothing.
    """

    spent_usd: Decimal
    reserved_usd: Decimal


async def used(
    tx: Transaction,
    customer_id: str,
    *,
    since: datetime | None = None,
    conversation_id: str | None = None,
) -> Used:
    """Return what is spent and reserved of a customer's limit.

    Args:
        tx: the transaction.
        customer_id: whose.
        since: counts usage served from this instant on; None counts all.
        conversation_id: counts one conversation alone.
    """
    usage = [col(UsageRecord.customer_id) == customer_id]
    in_flight = [col(Reservation.customer_id) == customer_id]
    if since is not None:
        # What is in flight will be served after `since`, whenever it was reserved.
        usage.append(col(UsageRecord.served_at) >= since)
    if conversation_id is not None:
        usage.append(col(UsageRecord.conversation_id) == conversation_id)
        in_flight.append(col(Reservation.conversation_id) == conversation_id)
    # Two sums and not `ledger.effective`: the long one is answered by an index alone.
    recorded = _sum(UsageRecord.charge_nano_usd).where(*usage)
    adjusted = _sum(Adjustment.charge_nano_usd).join(UsageRecord).where(*usage)
    reserved = _sum(Reservation.amount_nano_usd).where(*in_flight)
    row = (
        await tx.execute(
            select(
                (recorded.scalar_subquery() + adjusted.scalar_subquery()).label("spent"),
                reserved.scalar_subquery().label("reserved"),
            )
        )
    ).one()
    return Used(from_nano_usd(int(row.spent)), from_nano_usd(int(row.reserved)))


def _sum(nano_usd: int | None) -> Select[Any]:
    return select(func.coalesce(func.sum(col(nano_usd)), 0))


RESERVED = (
    _sum(Reservation.amount_nano_usd)
    .where(col(Reservation.customer_id) == bindparam("of_customer"))
    .scalar_subquery()
)
"""All that is reserved of `of_customer`, as a part of a statement."""


async def reserve(
    tx: Transaction, key: RequestKey, *, conversation_id: str | None, nano_usd: int, at: datetime
) -> None:
    """Keep room free for the request. The caller has locked the customer and found the room."""
    await tx.execute(
        insert(Reservation).values(
            customer_id=key.customer_id,
            request_id=key.request_id,
            conversation_id=conversation_id,
            amount_nano_usd=nano_usd,
            reserved_at=at,
        )
    )


# Built once: every request runs it, whether it has reserved or not.
_RELEASE = delete(Reservation).where(
    col(Reservation.customer_id) == bindparam("of_customer"),
    col(Reservation.request_id) == bindparam("of_request"),
)


async def release(tx: Transaction, key: RequestKey) -> None:
    """Give back what the request has reserved, if anything."""
    await tx.execute(_RELEASE, {"of_customer": key.customer_id, "of_request": key.request_id})


async def release_lapsed(tx: Transaction, customer_id: str, at: datetime) -> None:
    """Give back what the customer's terminated requests have left reserved."""
    called_lately = select(col(Attempt.attempt_id)).where(
        col(Attempt.customer_id) == col(Reservation.customer_id),
        col(Attempt.request_id) == col(Reservation.request_id),
        col(Attempt.started_at) >= at - LAPSE,
    )
    await tx.execute(
        delete(Reservation).where(
            col(Reservation.customer_id) == customer_id,
            col(Reservation.reserved_at) < at - LAPSE,
            ~called_lately.exists(),
        )
    )
