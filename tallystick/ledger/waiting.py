"""Everything that is not finished, as the ledger knows it: since when, why, and what hangs on it.

Reads only, and only what is there for all to see: no prompt, no reply, no key. What waits without
having left a row here (a request that was never admitted, a step that cannot reach PostgreSQL) is
known to Temporal alone; `tallystick.stuck` lays both views together by the workflow that each row
names. Money at stake is a charge that Stripe has not acknowledged, what an invoice lacks, or what
records differ by; None where nobody can tell.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlmodel import col

from tallystick.contracts import (
    RequestKey,
    batch_workflow_id,
    cycle_workflow_id,
    request_workflow_id,
)
from tallystick.ledger.account_tables import Invoice, StripeEvent
from tallystick.ledger.batch_tables import BatchJob, BatchShard, BatchTry, ShardState
from tallystick.ledger.database import Transaction
from tallystick.ledger.reconciliation_tables import (
    AttemptSettlement,
    Discrepancy,
    DiscrepancyState,
)
from tallystick.ledger.tables import (
    Adjustment,
    Attempt,
    Customer,
    MeterEvent,
    Outcome,
    UsageRecord,
)
from tallystick.metering import CHARGE_METER
from tallystick.money import from_nano_usd
from tallystick.reconciling.findings import Kind
from tallystick.subjects import difference_subject, meter_subject, usage_subject


@dataclass(frozen=True, slots=True)
class Waiting:
    """Something that is not finished. Customer and request are empty where it is nobody's.

    `subject` is what an operator calls it (`tallystick.subjects`), `workflow_id` the workflow that
    will go on with it, if any has to. `attempts` is how often it was tried, where that is known
    here. `unmapped` says that its customer is no Stripe customer yet.
    """

    what: str
    subject: str
    customer_id: str
    request_id: str
    since: datetime
    why: str
    at_stake_usd: Decimal | None = None
    workflow_id: str | None = None
    attempts: int | None = None
    unmapped: bool = False


async def waiting(tx: Transaction, *, older_than: datetime) -> Sequence[Waiting]:
    """Return what has been waiting since before `older_than`, oldest first.

    What waits for a person is returned however young it is: usage without a price, parked events
    from Stripe, differences that nobody but a person can settle.
    """
    rows = [
        *await _open_attempts(tx, older_than),
        *await _open_batches(tx, older_than),
        *await _unpriced(tx),
        *await _unmetered(tx, older_than),
        *await _unapplied(tx, older_than),
        *await _unpaid(tx, older_than),
        *await _undecided(tx),
    ]
    return sorted(rows, key=lambda row: row.since)


async def workflow_of(tx: Transaction, key: RequestKey) -> str:
    """Return the id of the workflow that delivers what this request has in the outbox."""
    job = select(_job_of(key.customer_id, key.request_id))
    return _workflow_id(key.customer_id, key.request_id, (await tx.execute(job)).scalar_one())


def _job_of(customer_id: Any, request_id: Any) -> ColumnElement[str]:
    """Return which job a chunk belongs to; none for a request of its own."""
    return (
        select(col(BatchJob.job_id))
        .where(
            col(BatchJob.customer_id) == customer_id,
            func.starts_with(request_id, col(BatchJob.job_id).concat("/chunk/")),
        )
        .order_by(func.length(col(BatchJob.job_id)).desc())
        .limit(1)
        .scalar_subquery()
    )


def _workflow_id(customer_id: str, request_id: str, job_id: str | None) -> str:
    return batch_workflow_id(job_id) if job_id else request_workflow_id(customer_id, request_id)


async def _open_attempts(tx: Transaction, older_than: datetime) -> list[Waiting]:
    """Single calls of which nothing is known; reconciliation settles them."""
    statement = select(
        col(Attempt.customer_id),
        col(Attempt.request_id),
        col(Attempt.outcome),
        col(Attempt.started_at),
        col(Attempt.error_message),
        col(Attempt.number),
    ).where(
        col(Attempt.outcome).in_([Outcome.STARTED, Outcome.INDETERMINATE]),
        col(Attempt.started_at) < older_than,
        ~exists().where(col(BatchTry.attempt_id) == col(Attempt.attempt_id)),
        ~exists().where(col(AttemptSettlement.attempt_id) == col(Attempt.attempt_id)),
    )
    return [
        Waiting(
            what="in flight" if row.outcome == Outcome.STARTED else "outcome unknown",
            subject=request_workflow_id(row.customer_id, row.request_id),
            customer_id=row.customer_id,
            request_id=row.request_id,
            since=row.started_at,
            why=f"attempt {row.number}: {row.error_message or 'no answer recorded yet'}",
            workflow_id=request_workflow_id(row.customer_id, row.request_id),
            attempts=row.number,
        )
        for row in await tx.execute(statement)
    ]


async def _open_batches(tx: Transaction, older_than: datetime) -> list[Waiting]:
    """Batches whose create was not answered, and those that should have ended, in a line each."""
    unanswered = col(BatchShard.state).in_([ShardState.SENT, ShardState.LOST])
    overdue = col(BatchShard.expires_at) < older_than
    statement = (
        select(
            col(BatchJob.customer_id),
            col(BatchShard.job_id),
            col(BatchShard.shard),
            col(BatchShard.items),
            col(BatchShard.batch_id),
            col(BatchShard.sent_at),
            col(BatchShard.trouble),
        )
        .join(BatchJob, col(BatchJob.job_id) == col(BatchShard.job_id))
        .where(
            or_(unanswered, and_(col(BatchShard.state).in_(_AT_WORK), overdue)),
            col(BatchShard.sent_at) < older_than,
        )
    )
    return [
        Waiting(
            what="in flight" if row.batch_id else "outcome unknown",
            subject=batch_workflow_id(row.job_id),
            customer_id=row.customer_id,
            request_id=row.job_id,
            since=row.sent_at,
            why=f"batch {row.shard} of the job, {row.items:,} requests: "
            + (row.trouble or (f"{row.batch_id} is overdue" if row.batch_id else "no answer yet")),
            workflow_id=batch_workflow_id(row.job_id),
        )
        for row in await tx.execute(statement)
    ]


_AT_WORK = (ShardState.RUNNING, ShardState.ENDED)


async def _unpriced(tx: Transaction) -> list[Waiting]:
    statement = select(
        col(UsageRecord.customer_id),
        col(UsageRecord.request_id),
        col(UsageRecord.served_at),
        col(UsageRecord.reason),
    ).where(
        col(UsageRecord.cost_usd).is_(None),
        ~exists().where(col(Adjustment.usage_record_id) == col(UsageRecord.usage_record_id)),
    )
    return [
        Waiting(
            what="unpriced",
            subject=usage_subject(row.customer_id, row.request_id),
            customer_id=row.customer_id,
            request_id=row.request_id,
            since=row.served_at,
            why=row.reason,
        )
        for row in await tx.execute(statement)
    ]


async def _unmetered(tx: Transaction, older_than: datetime) -> list[Waiting]:
    events = (
        select(
            col(MeterEvent.customer_id),
            col(MeterEvent.request_id),
            func.min(col(MeterEvent.occurred_at)).label("since"),
            func.max(col(MeterEvent.parked_reason)).label("reason"),
            func.sum(col(MeterEvent.value))
            .filter(col(MeterEvent.meter) == CHARGE_METER)
            .label("charge"),
        )
        .where(
            col(MeterEvent.delivered_at).is_(None),
            col(MeterEvent.withdrawn_at).is_(None),
            col(MeterEvent.occurred_at) < older_than,
        )
        .group_by(col(MeterEvent.customer_id), col(MeterEvent.request_id))
        .subquery()
    )
    statement = select(
        events,
        _job_of(events.c.customer_id, events.c.request_id).label("job_id"),
        col(Customer.stripe_customer_id).is_(None).label("unmapped"),
    ).join(Customer, col(Customer.customer_id) == events.c.customer_id)
    return [
        Waiting(
            what="parked" if row.reason else "not metered",
            subject=meter_subject(row.customer_id, row.request_id),
            customer_id=row.customer_id,
            request_id=row.request_id,
            since=row.since,
            why=row.reason or "Stripe has not acknowledged it yet",
            at_stake_usd=None if row.charge is None else from_nano_usd(int(row.charge)),
            workflow_id=_workflow_id(row.customer_id, row.request_id, row.job_id),
            unmapped=row.unmapped,
        )
        for row in await tx.execute(statement)
    ]


async def _unapplied(tx: Transaction, older_than: datetime) -> list[Waiting]:
    parked = col(StripeEvent.parked_at).is_not(None)
    statement = select(
        col(StripeEvent.event_id),
        col(StripeEvent.type),
        col(StripeEvent.customer_id),
        col(StripeEvent.received_at),
        col(StripeEvent.reason),
        parked.label("parked"),
    ).where(
        col(StripeEvent.applied_at).is_(None),
        or_(parked, col(StripeEvent.received_at) < older_than),
    )
    return [
        Waiting(
            what="event parked" if row.parked else "event not applied",
            subject=row.event_id,
            customer_id=row.customer_id or "",
            request_id="",
            since=row.received_at,
            why=f"{row.event_id} ({row.type}): {row.reason or 'its account has not looked yet'}",
        )
        for row in await tx.execute(statement)
    ]


async def _unpaid(tx: Transaction, older_than: datetime) -> list[Waiting]:
    """Invoices whose payment failed, or that nobody has paid by when they were due."""
    since = func.coalesce(col(Invoice.failed_at), col(Invoice.due_at))
    statement = select(Invoice, since.label("since")).where(
        col(Invoice.status) == "open", col(Invoice.paid_at).is_(None), since < older_than
    )
    return [
        Waiting(
            what="unpaid",
            subject=cycle_workflow_id(row.customer_id),
            customer_id=row.customer_id,
            request_id="",
            since=row.since,
            why=f"invoice {row.stripe_invoice_id}: {row.failure or 'nobody has paid it'}",
            at_stake_usd=Decimal(row.amount_due_cents - row.amount_paid_cents).scaleb(-2),
            workflow_id=cycle_workflow_id(row.customer_id),
            attempts=row.attempt_count,
        )
        for row in await tx.execute(statement)
    ]


async def _undecided(tx: Transaction) -> list[Waiting]:
    """Differences that wait for a person.

    What Stripe has not acknowledged yet is not among them: it is here by its requests.
    """
    by_itself = col(Discrepancy.proposal)["automatic"].as_boolean()  # pyright: ignore[reportIndexIssue]
    statement = select(Discrepancy).where(
        col(Discrepancy.state) == DiscrepancyState.OPEN,
        col(Discrepancy.kind) != Kind.NOT_DELIVERED,
        func.coalesce(by_itself, False).is_(False),
    )
    return [
        Waiting(
            what="difference",
            subject=difference_subject(row.discrepancy_id),
            customer_id=row.customer_id or "",
            request_id="",
            since=row.found_at,
            why=row.words,
            at_stake_usd=None if row.usd is None else abs(Decimal(row.usd)),
        )
        for row in await tx.execute(statement)
    ]
