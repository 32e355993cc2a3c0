"""Which accounts have something waiting that their cycle may not have heard of.

A cycle is told of news by signals, and signals can be lost with the process that meant to send
them. What they announce is in the ledger, so looking there finds every account that should be
awake, and none that should not: a cycle that has done its work leaves nothing to find.
"""

from datetime import datetime, timedelta

from sqlalchemy import ScalarSelect, or_, select, union
from sqlmodel import col

from tallystick.ledger.account_tables import (
    BillingAccount,
    Notice,
    PlanMove,
    StripeEvent,
    TopUp,
)
from tallystick.ledger.database import Transaction

UNHEARD = timedelta(minutes=10)
"""After this, an event that was forwarded and not applied is news again."""


async def waiting_accounts(tx: Transaction, now: datetime, limit: int) -> list[str]:
    """Return customers with a notice to deliver, credit to buy, events to apply, or an account
    that Stripe has not been told of (or not of its last move), or whose end has come; at most
    `limit` of them."""
    waiting = union(
        select(col(Notice.customer_id)).where(
            col(Notice.delivered_at).is_(None), col(Notice.customer_id).is_not(None)
        ),
        select(col(TopUp.customer_id)).where(
            col(TopUp.granted_at).is_(None), col(TopUp.failed_at).is_(None)
        ),
        select(col(StripeEvent.customer_id)).where(
            col(StripeEvent.applied_at).is_(None),
            col(StripeEvent.parked_at).is_(None),
            col(StripeEvent.forwarded_at) < now - UNHEARD,
            col(StripeEvent.customer_id).is_not(None),
        ),
        select(col(BillingAccount.customer_id)).where(
            or_(col(BillingAccount.aligned_plan).is_(None), col(BillingAccount.cancel_at) <= now),
            col(BillingAccount.ended_at).is_(None),
        ),
        # A move that was decided last, while Stripe is set up for another plan.
        select(col(BillingAccount.customer_id)).where(
            _last_move().is_distinct_from(col(BillingAccount.aligned_plan)),
            _last_move().is_not(None),
            col(BillingAccount.cancel_at).is_(None),
        ),
    ).limit(limit)
    return sorted(each for each in await tx.scalars(waiting) if each is not None)


def _last_move() -> ScalarSelect[str]:
    return (
        select(col(PlanMove.plan))
        .where(col(PlanMove.customer_id) == col(BillingAccount.customer_id))
        .order_by(col(PlanMove.plan_move_id).desc())
        .limit(1)
        .scalar_subquery()
    )
