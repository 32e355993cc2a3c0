"""What customers and operators are to be told: raised with the fact it is about, delivered once.

A notice is a row in the transaction of what it announces, under a key that names it; a step that
is repeated after a crash raises nothing twice, and a notice is not lost because the notifier was
away. Delivery is marked after the notifier has taken it, so a crash in between delivers it again
under the same id, by which a receiver knows it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from tallystick.ledger.account_tables import Notice
from tallystick.ledger.database import Transaction, entity


async def raise_notice(
    tx: Transaction,
    customer_id: str | None,
    *,
    key: str,
    kind: str,
    audience: Literal["customer", "operator"],
    message: str,
    facts: Mapping[str, Any],
    at: datetime,
) -> bool:
    """Add a notice; False, and no change, where the customer has one under this key.

    Args:
        tx: the transaction of what the notice is about.
        customer_id: whose account it concerns; None where it is no one's, or everybody's.
        key: names the notice for ever, such as `grace-started:in_123:2026-02-01`.
        kind: what a receiver can sort by, such as `grace_started`.
        audience: whether the customer or the operator is to hear of it.
        message: one or two plain sentences; money in dollars, no keys, no prompts.
        facts: the same in data, JSON values only.
        at: the instant of the fact.
    """
    statement = (
        insert(Notice)
        .values(
            customer_id=customer_id,
            key=key,
            kind=kind,
            audience=audience,
            message=message,
            facts=dict(facts),
            raised_at=at,
        )
        .on_conflict_do_nothing(index_elements=["customer_id", "key"])
        .returning(col(Notice.notice_id))
    )
    return (await tx.execute(statement)).first() is not None


async def waiting(tx: Transaction, customer_id: str | None) -> Sequence[Notice]:
    """Return a customer's notices, or those of no customer, that the notifier has not taken yet,
    oldest first."""
    statement = (
        select(Notice)
        .where(
            col(Notice.delivered_at).is_(None),
            col(Notice.customer_id).is_not_distinct_from(customer_id),
        )
        .order_by(col(Notice.notice_id))
    )
    return [entity(Notice, row) for row in await tx.execute(statement)]


async def mark_delivered(tx: Transaction, notice_id: int, at: datetime) -> None:
    """Note that the notifier has taken it."""
    await tx.execute(
        update(Notice)
        .where(col(Notice.notice_id) == notice_id, col(Notice.delivered_at).is_(None))
        .values(delivered_at=at)
    )
