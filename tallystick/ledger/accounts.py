"""Accounts: from when a customer's periods are counted, how far its books are closed, its end.

Closing is what makes a statement final. Whoever records usage or books an adjustment reads the
account under a shared lock (`share_lock`) and dates the row by `billed_at`; `close_until` changes
the account, which waits for all of those and makes the next ones wait. A row is therefore either
committed before the books are closed, and then the statement reads it, or it is dated into a period
that is still open. None is in two periods, none in a closed one, and none is lost.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import CTE, ColumnElement, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from tallystick.ledger.account_tables import BillingAccount
from tallystick.ledger.database import Transaction, entity
from tallystick.ledger.reservations import LAPSE
from tallystick.ledger.tables import Attempt, Outcome, Reservation
from tallystick.plans.periods import Period, billing_period

_MOMENT = timedelta(microseconds=1)
"""As far apart as two instants can be that PostgreSQL tells apart."""


# --- Dating what is billed ------------------------------------------------------------------------
def share_lock(customer_id: ColumnElement[str]) -> CTE:
    """Return the customer's account as a part of a statement, locked against closing.

    Locking reads the row as it is then, not as it was when the statement began. A customer without
    an account has no row here.
    """
    return (
        select(col(BillingAccount.closed_until), col(BillingAccount.cancel_at))
        .where(col(BillingAccount.customer_id) == customer_id)
        .with_for_update(read=True)
        .cte("account")
    )


def billed_at(at: ColumnElement[datetime], account: CTE) -> ColumnElement[datetime]:
    """Return in which period something of the instant `at` is billed, given as an instant in it.

    Its own, or the open one if its own is closed. What an account is still served after its end was
    asked for before it, and belongs to its last period: there is no other.
    """
    open_since = select(account.c.closed_until).scalar_subquery()
    last_moment = select(account.c.cancel_at - _MOMENT).scalar_subquery()
    return func.greatest(func.least(at, last_moment), open_since)


# --- Reading --------------------------------------------------------------------------------------
async def get(tx: Transaction, customer_id: str) -> BillingAccount | None:
    """Return the customer's account, or None before it is opened."""
    return await _read(tx, customer_id, locked=False)


async def lock(tx: Transaction, customer_id: str) -> BillingAccount | None:
    """Return the customer's account and keep everybody else from it until this transaction ends."""
    return await _read(tx, customer_id, locked=True)


async def _read(tx: Transaction, customer_id: str, *, locked: bool) -> BillingAccount | None:
    statement = select(BillingAccount).where(col(BillingAccount.customer_id) == customer_id)
    row = (await tx.execute(statement.with_for_update() if locked else statement)).one_or_none()
    return entity(BillingAccount, row) if row else None


def period_of(account: BillingAccount, ordinal: int) -> Period:
    """Return the account's period of that number, cut where the account ends."""
    start, end = billing_period(account.anchor, account.time_zone, ordinal)
    return Period(start, min(end, account.cancel_at or end))


async def in_flight(tx: Transaction, customer_id: str, before: datetime) -> int:
    """Return how many requests from before that instant are not finished.

    What is a day old is not waited for: nobody serves it any more (`reservations.LAPSE`).
    """
    calling = select(col(Attempt.request_id)).where(
        col(Attempt.customer_id) == customer_id,
        col(Attempt.outcome) == Outcome.STARTED,
        col(Attempt.started_at) < before,
        col(Attempt.started_at) >= before - LAPSE,
    )
    waiting = select(col(Reservation.request_id)).where(
        col(Reservation.customer_id) == customer_id,
        col(Reservation.reserved_at) < before,
        col(Reservation.reserved_at) >= before - LAPSE,
    )
    requests = calling.union(waiting).subquery()
    return (await tx.execute(select(func.count()).select_from(requests))).scalar_one()


# --- Changing -------------------------------------------------------------------------------------
async def open_account(
    tx: Transaction, customer_id: str, anchor: datetime, time_zone: str, at: datetime
) -> BillingAccount:
    """Return the customer's account, opened now if it has none; nothing of one there is changes.

    Args:
        tx: the transaction.
        customer_id: whose.
        anchor: when the first period begins. Its seconds are dropped: Stripe tells what its meters
            come to in whole minutes only (facts on Stripe, 'Meters'), and a period of ours is
            compared with that.
        time_zone: in which months are counted, `tallystick.plans.moves.billing_zone`.
        at: the instant it is opened.
    """
    begins = anchor.astimezone(UTC).replace(second=0, microsecond=0)
    await tx.execute(
        insert(BillingAccount)
        .values(
            customer_id=customer_id,
            anchor=begins,
            time_zone=time_zone,
            closed_until=begins,
            invoiced_until=begins,
            opened_at=at,
        )
        .on_conflict_do_nothing()
    )
    account = await get(tx, customer_id)
    assert account is not None  # noqa: S101 - accounts are never removed
    return account


async def close_until(tx: Transaction, customer_id: str, end: datetime) -> bool:
    """Close the books up to `end`; False where they are. Waits for whoever records meanwhile.

    To be committed by itself, so that nobody who records waits longer than a moment.
    """
    return await _change(tx, customer_id, col(BillingAccount.closed_until) < end, closed_until=end)


async def set_invoiced_until(tx: Transaction, customer_id: str, end: datetime) -> bool:
    """Note that the invoice of the period up to `end` is final; False where it was."""
    return await _change(
        tx,
        customer_id,
        col(BillingAccount.invoiced_until) < end,
        col(BillingAccount.closed_until) >= end,
        invoiced_until=end,
    )


async def set_subscription(tx: Transaction, customer_id: str, subscription_id: str | None) -> None:
    """Note which Stripe subscription collects for the account, if any."""
    await _change(tx, customer_id, stripe_subscription_id=subscription_id)


async def set_aligned_plan(tx: Transaction, customer_id: str, plan: str | None) -> None:
    """Note the plan that Stripe is set up for from the next boundary on."""
    await _change(tx, customer_id, aligned_plan=plan)


async def set_cancel_at(tx: Transaction, customer_id: str, at: datetime) -> bool:
    """Let the account end at `at`; False where that part of its books is closed, or it ends sooner.

    An end can be brought forward, not put off: from it on requests were refused and Stripe told.
    """
    return await _change(
        tx,
        customer_id,
        col(BillingAccount.closed_until) < at,
        func.coalesce(col(BillingAccount.cancel_at) > at, True),
        cancel_at=at,
    )


async def end(tx: Transaction, customer_id: str, at: datetime) -> bool:
    """Note that the account has ended, and all of it is invoiced.

    False where it had ended before, is not to end, or its books are still open.
    """
    return await _change(
        tx,
        customer_id,
        col(BillingAccount.ended_at).is_(None),
        col(BillingAccount.cancel_at) <= col(BillingAccount.closed_until),
        ended_at=at,
        invoiced_until=col(BillingAccount.cancel_at),
    )


async def count_in_utc(tx: Transaction, customer_id: str, anchor: datetime) -> None:
    """Count the account's periods in UTC from now on, as Stripe does, by another anchor."""
    await _change(tx, customer_id, anchor=anchor, time_zone="UTC")


async def _change(
    tx: Transaction, customer_id: str, *only: ColumnElement[bool], **values: object
) -> bool:
    statement = update(BillingAccount).where(col(BillingAccount.customer_id) == customer_id, *only)
    return (await tx.execute(statement.values(**values))).rowcount > 0
