"""What was asked and answered: kept for customers that want it, removed when its date has come.

Content is kept of requests that are admitted and recorded while keeping is on. It is written in the
transaction that writes the usage record, so a crash leaves both or neither. The date it goes is set
then: switching off, or another number of days, is for what comes later.

Erasing must not miss a request that is being recorded at that very moment. Whoever keeps content
therefore holds a lock of its customer, shared among them, from before it reads whether to keep
until it has committed; whoever decides takes the same lock alone. What was kept is then there to be
erased, and what comes later reads the decision. It is an advisory lock, so no other work waits for
it, and it is taken before any row is locked, so that nobody waits in a circle.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import FromClause, bindparam, delete, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from tallystick.contracts import RequestKey
from tallystick.ledger.content_tables import ContentTerms, RequestContent
from tallystick.ledger.database import Transaction, entity
from tallystick.ledger.tables import Customer

MAX_DAYS = 3_650
_LOCK = 1_668_247_156
"""Sets these locks apart from other advisory ones; the customer's hash is the second half."""


@dataclass(frozen=True, slots=True)
class Content:
    """What is to be kept of a request, as JSON text, sealed where keys are set."""

    params: str
    reply: str


@dataclass(frozen=True, slots=True)
class Kept:
    """How much is kept for a customer, and when the last of it goes."""

    requests: int
    last_goes_at: datetime | None


def terms_then() -> FromClause:
    """Return the row in force at the instant `at`, for a statement that selects a customer."""
    return (
        select(col(ContentTerms.days))
        .where(
            col(ContentTerms.customer_id) == col(Customer.customer_id),
            col(ContentTerms.valid_from) <= bindparam("at"),
        )
        .order_by(col(ContentTerms.valid_from).desc())
        .limit(1)
        .lateral("content")
    )


# --- Deciding -------------------------------------------------------------------------------------
async def decide(tx: Transaction, customer_id: str, days: int | None, *, erase: bool) -> int:
    """Keep content for so many days from now on, or not at all; returns of how many it was erased.

    `erase` removes all that is kept, at once. What is kept otherwise goes at its date. The
    customer's requests that are kept are recorded before this transaction or after it.
    """
    await tx.execute(select(func.pg_advisory_xact_lock(_LOCK, func.hashtext(customer_id))))
    await tx.execute(
        insert(ContentTerms).values(
            customer_id=customer_id,
            valid_from=func.clock_timestamp(),  # in the order of the lock
            days=days,
            erases=erase,
        )
    )
    if not erase:
        return 0
    statement = delete(RequestContent).where(col(RequestContent.customer_id) == customer_id)
    return (await tx.execute(statement)).rowcount


async def decisions(tx: Transaction, customer_id: str) -> Sequence[ContentTerms]:
    """Return all that was decided for the customer, oldest first; the last one is in force."""
    statement = (
        select(ContentTerms)
        .where(col(ContentTerms.customer_id) == customer_id)
        .order_by(col(ContentTerms.valid_from))
    )
    return [entity(ContentTerms, row) for row in await tx.execute(statement)]


# --- Keeping --------------------------------------------------------------------------------------
async def days_held(tx: Transaction, customer_id: str) -> int | None:
    """Return for how many days content is kept, and hold that until the transaction ends.

    None is not at all. To be called before the transaction locks anything.
    """
    await tx.execute(select(func.pg_advisory_xact_lock_shared(_LOCK, func.hashtext(customer_id))))
    # A statement of its own: it sees what was committed while the lock was waited for.
    statement = (
        select(col(ContentTerms.days))
        .where(col(ContentTerms.customer_id) == customer_id)
        .order_by(col(ContentTerms.valid_from).desc())
        .limit(1)
    )
    return (await tx.execute(statement)).scalar_one_or_none()


async def keep(tx: Transaction, key: RequestKey, content: Content, days: int) -> None:
    """Keep what was said in the request whose usage record this transaction has just written."""
    await tx.execute(
        insert(RequestContent).values(
            customer_id=key.customer_id,
            request_id=key.request_id,
            params=content.params,
            reply=content.reply,
            goes_at=func.now() + timedelta(days=days),
        )
    )


# --- Removing -------------------------------------------------------------------------------------
async def remove_old(tx: Transaction, limit: int) -> int:
    """Remove content whose date has come, of so many requests at the most; returns of how many."""
    key = tuple_(col(RequestContent.customer_id), col(RequestContent.request_id))
    old = (
        select(col(RequestContent.customer_id), col(RequestContent.request_id))
        .where(col(RequestContent.goes_at) <= func.now())
        .order_by(col(RequestContent.goes_at))
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return (await tx.execute(delete(RequestContent).where(key.in_(old)))).rowcount


# --- Reading --------------------------------------------------------------------------------------
async def find(tx: Transaction, key: RequestKey) -> RequestContent | None:
    """Return what is kept of the request; None where nothing is, or its date has come."""
    statement = select(RequestContent).where(
        col(RequestContent.customer_id) == key.customer_id,
        col(RequestContent.request_id) == key.request_id,
        col(RequestContent.goes_at) > func.now(),
    )
    row = (await tx.execute(statement)).one_or_none()
    return entity(RequestContent, row) if row else None


async def kept(tx: Transaction, customer_id: str) -> Kept:
    """Return how much is kept for the customer."""
    statement = select(func.count(), func.max(col(RequestContent.goes_at))).where(
        col(RequestContent.customer_id) == customer_id, col(RequestContent.goes_at) > func.now()
    )
    requests, last = (await tx.execute(statement)).one()
    return Kept(requests, last)
