"""Batch jobs: submitted once with all their items, read back item by item.

A job and its items are one transaction, so a job is there whole or not at all, and whoever submits
it again under the same id finds it: the fingerprint of all items tells whether it is the same job.
Items are copied in and results are streamed out; neither is ever in memory together.
"""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import psycopg
from sqlalchemy import ColumnElement, and_, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from tallystick.contracts import BatchProgress, MeterOrder, RequestKey
from tallystick.errors import (
    REQUEST_ID_REUSED,
    InvalidRequestError,
    RequestIdReusedError,
    UnknownCustomerError,
)
from tallystick.ledger import customers
from tallystick.ledger.batch_tables import (
    BatchItem,
    BatchJob,
    BatchResult,
    BatchShard,
    ItemOutcome,
    ShardState,
)
from tallystick.ledger.copying import copying
from tallystick.ledger.database import Transaction, entity
from tallystick.ledger.tables import Attempt, MeterEvent, Reservation, UsageRecord
from tallystick.money import from_nano_usd, total
from tallystick.plans.batching import NewItem, Span, expected_end


# --- Submitting -----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class NewJob:
    """What is to be submitted: for whom, and the most that it may be charged.

    `job_id` is valid as `tallystick.contracts.JobId` has it. The items come beside.
    """

    job_id: str
    customer_id: str
    max_cost_usd: Decimal | None = None
    caller_metadata: dict[str, str] | None = None


@dataclass(slots=True)
class _Sums:
    """What a job's items come to, as they pass."""

    items: int = 0
    body_bytes: int = 0
    estimated_input_tokens: int = 0
    highest_cost_usd: Decimal = Decimal(0)
    _digest: Any = field(default_factory=hashlib.sha256)

    def add(self, item: NewItem) -> None:
        self.items += 1
        self.body_bytes += item.body_bytes
        self.estimated_input_tokens += item.estimated_input_tokens
        self.highest_cost_usd = total([self.highest_cost_usd, item.highest_cost_usd])
        self._digest.update(f"{item.request_id}\0{item.fingerprint}\n".encode())

    def columns(self) -> dict[str, Any]:
        return {
            "items": self.items,
            "body_bytes": self.body_bytes,
            "estimated_input_tokens": self.estimated_input_tokens,
            "highest_cost_usd": self.highest_cost_usd,
            "fingerprint": self._digest.hexdigest(),
        }


_COPY_ITEMS = (
    "COPY batch_items (job_id, number, customer_id, request_id, document, fingerprint, model, "
    "params, body_bytes, estimated_input_tokens, prompt_chars, highest_cost_usd) FROM STDIN"
)


async def submit(tx: Transaction, new: NewJob, items: AsyncIterable[NewItem]) -> BatchJob:
    """Write the job with its items; one that was submitted before is returned as it is.

    Raises:
        UnknownCustomerError: there is no such customer.
        InvalidRequestError: it has no items, or a request id that is in use.
        RequestIdReusedError: the job id belongs to a job with other items, or of another customer.
    """
    if await customers.get(tx, new.customer_id) is None:
        raise UnknownCustomerError(f"customer_id: no customer {new.customer_id!r}")
    begun = (
        insert(BatchJob)
        .values(
            job_id=new.job_id,
            customer_id=new.customer_id,
            max_cost_usd=new.max_cost_usd,
            caller_metadata=new.caller_metadata,
            **_Sums().columns(),
        )
        .on_conflict_do_nothing()
        .returning(col(BatchJob.job_id))
    )
    if (await tx.execute(begun)).one_or_none() is None:
        return await _submitted_before(tx, new, items)
    try:
        sums = await _copy(tx, new, items)
    except psycopg.errors.UniqueViolation as error:
        raise InvalidRequestError(
            f"job {new.job_id!r} has two items with the same request id, or one that an item of "
            "another job has"
        ) from error
    if not sums.items:
        raise InvalidRequestError(f"job {new.job_id!r} has no items")
    used = await _used_before(tx, new.job_id)
    if used is not None:
        raise InvalidRequestError(f"request id {used!r} was used before; use a new one")
    await _change(tx, new.job_id, **sums.columns())
    return await existing(tx, new.job_id)


async def _copy(tx: Transaction, new: NewJob, items: AsyncIterable[NewItem]) -> _Sums:
    sums = _Sums()
    async with copying(tx, _COPY_ITEMS) as copy:
        async for item in items:
            if item.request_id.startswith(_chunk(new.job_id)):
                raise InvalidRequestError(
                    f"{item.request_id!r}: ids that begin so are those of the job's meter events"
                )
            await copy.write_row(
                (
                    new.job_id,
                    sums.items,
                    new.customer_id,
                    item.request_id,
                    item.document,
                    item.fingerprint,
                    item.model,
                    item.params,
                    item.body_bytes,
                    item.estimated_input_tokens,
                    item.prompt_chars,
                    item.highest_cost_usd,
                )
            )
            sums.add(item)
    return sums


async def _submitted_before(
    tx: Transaction, new: NewJob, items: AsyncIterable[NewItem]
) -> BatchJob:
    sums = _Sums()
    async for item in items:
        sums.add(item)
    job = await existing(tx, new.job_id)
    if (job.customer_id, job.fingerprint) != (new.customer_id, sums.columns()["fingerprint"]):
        raise RequestIdReusedError(
            f"job {new.job_id!r} was submitted before with other items; use a new id for a new job",
            type=REQUEST_ID_REUSED.type,
        )
    return job


async def _used_before(tx: Transaction, job_id: str) -> str | None:
    statement = (
        select(col(BatchItem.request_id))
        .join(
            Attempt,
            and_(
                col(Attempt.customer_id) == col(BatchItem.customer_id),
                col(Attempt.request_id) == col(BatchItem.request_id),
            ),
        )
        .where(col(BatchItem.job_id) == job_id)
        .limit(1)
    )
    return (await tx.execute(statement)).scalar_one_or_none()


def _chunk(job_id: str) -> str:
    return f"{job_id}/chunk/"


def chunk_id(job_id: str, shard: int, chunk: int) -> str:
    """Return what the meter events of one chunk have for a request id."""
    return f"{_chunk(job_id)}{shard}-{chunk}"


# --- Its life -------------------------------------------------------------------------------------
async def get(tx: Transaction, job_id: str, *, locked: bool = False) -> BatchJob | None:
    """Return the job, or None; `locked` keeps others from changing it meanwhile."""
    statement = select(BatchJob).where(col(BatchJob.job_id) == job_id)
    row = (await tx.execute(statement.with_for_update() if locked else statement)).one_or_none()
    return entity(BatchJob, row) if row else None


async def existing(tx: Transaction, job_id: str) -> BatchJob:
    """Return a job that was submitted; jobs are never removed."""
    job = await get(tx, job_id)
    assert job is not None, job_id  # noqa: S101 - the caller knows it from here
    return job


async def list_jobs(tx: Transaction, customer_id: str | None = None) -> list[BatchJob]:
    """Return the jobs of a customer, or of all, the latest first."""
    statement = select(BatchJob).order_by(col(BatchJob.created_at).desc(), col(BatchJob.job_id))
    if customer_id is not None:
        statement = statement.where(col(BatchJob.customer_id) == customer_id)
    return [entity(BatchJob, row) for row in await tx.execute(statement)]


async def set_admitted(tx: Transaction, job_id: str, highest_nano_usd: int, at: datetime) -> None:
    """Note that the job may be sent, and the most that it may be charged."""
    await _change(tx, job_id, admitted_at=at, highest_charge_nano_usd=highest_nano_usd)


async def note_cancelled(tx: Transaction, job_id: str, at: datetime) -> None:
    """Note that the job is to be cancelled: from now on nothing of it is sent."""
    unfinished = (col(BatchJob.cancelled_at).is_(None), col(BatchJob.finished_at).is_(None))
    await _change(tx, job_id, *unfinished, cancelled_at=at)


async def finish(tx: Transaction, job_id: str, at: datetime) -> None:
    """End the job: what was never sent is cancelled, and the prompts are taken away.

    For a job all of whose shards are finished, and that has nothing to send or was cancelled.
    """
    rest = (
        select(literal(job_id), col(BatchItem.number), literal(ItemOutcome.CANCELED.value))
        .outerjoin(BatchResult, _result_of_item())
        .where(col(BatchItem.job_id) == job_id, col(BatchResult.number).is_(None))
    )
    await tx.execute(
        insert(BatchResult)
        .from_select(["job_id", "number", "outcome"], rest)
        .on_conflict_do_nothing()
    )
    await tx.execute(
        update(BatchItem)
        .where(col(BatchItem.job_id) == job_id, col(BatchItem.params).is_not(None))
        .values(params=None)
    )
    await _change(tx, job_id, col(BatchJob.finished_at).is_(None), finished_at=at)


async def keep_reserved(tx: Transaction, job: BatchJob, at: datetime) -> None:
    """Keep the job's room for another day: it is still being worked on (`reservations.LAPSE`)."""
    await tx.execute(
        update(Reservation)
        .where(
            col(Reservation.customer_id) == job.customer_id,
            col(Reservation.request_id) == job.job_id,
        )
        .values(reserved_at=at)
    )


async def _change(
    tx: Transaction, job_id: str, *only: ColumnElement[bool], **values: object
) -> None:
    await tx.execute(update(BatchJob).where(col(BatchJob.job_id) == job_id, *only).values(**values))


# --- How far it is --------------------------------------------------------------------------------
_AT_THE_PROVIDER = (ShardState.RUNNING, ShardState.ENDED)
"""What was sent without an answer may be there too; until that is known it is to be sent."""


async def progress(tx: Transaction, job_id: str, now: datetime) -> BatchProgress:
    """Return how far the job is, from its shards' counters; no item is looked at."""
    job = await existing(tx, job_id)
    statement = select(BatchShard).where(col(BatchShard.job_id) == job_id)
    shards = [entity(BatchShard, row) for row in await tx.execute(statement)]
    done = {each: sum(getattr(shard, each) for shard in shards) for each in ItemOutcome}
    if job.finished_at is not None:
        done[ItemOutcome.CANCELED] += job.items - sum(done.values())  # what was never sent
    in_flight = sum(
        shard.items - sum(shard.tallied.values())
        for shard in shards
        if shard.state in _AT_THE_PROVIDER and shard.lost_at is None
    )
    highest = job.highest_charge_nano_usd
    running = [shard for shard in shards if shard.state == ShardState.RUNNING]
    return BatchProgress(
        job_id=job_id,
        customer_id=job.customer_id,
        state=_state(job),
        items=job.items,
        waiting=job.items - in_flight - sum(done.values()),
        in_flight=in_flight,
        **{each.value: done[each] for each in ItemOutcome},
        batches=sum(shard.batch_id is not None for shard in shards),
        batches_settled=sum(shard.state == ShardState.SETTLED for shard in shards),
        cost_usd=total(shard.cost_usd for shard in shards),
        charge_usd=from_nano_usd(sum(shard.charge_nano_usd for shard in shards)),
        highest_charge_usd=None if highest is None else from_nano_usd(highest),
        batch_saves_usd=from_nano_usd(sum(shard.saved_nano_usd for shard in shards)),
        submitted_at=job.created_at,
        expected_end=expected_end(
            [Span(shard.begun_at, shard.ended_at) for shard in shards if shard.begun_at], now
        ),
        latest_end=max((s.expires_at for s in running if s.expires_at is not None), default=None),
        finished_at=job.finished_at,
        as_of=now,
    )


def _state(job: BatchJob) -> Any:
    if job.finished_at is not None:
        return "ended"
    if job.cancelled_at is not None:
        return "canceling"
    return "submitted" if job.admitted_at is None else "running"


async def unmetered(tx: Transaction, job_id: str) -> list[MeterOrder]:
    """Return what the job has in the outbox that Stripe has not acknowledged, by chunk."""
    job = await existing(tx, job_id)
    statement = select(col(BatchShard.shard), col(BatchShard.chunks)).where(
        col(BatchShard.job_id) == job_id
    )
    chunks = [
        chunk_id(job_id, row.shard, chunk)
        for row in await tx.execute(statement)
        for chunk in range(1, row.chunks + 1)
    ]
    waiting = (
        select(col(MeterEvent.request_id), func.count().label("events"))
        .where(
            col(MeterEvent.customer_id) == job.customer_id,
            col(MeterEvent.request_id).in_(chunks),
            col(MeterEvent.delivered_at).is_(None),
            col(MeterEvent.withdrawn_at).is_(None),
        )
        .group_by(col(MeterEvent.request_id))
        .order_by(func.min(col(MeterEvent.meter_event_id)))
    )
    return [
        MeterOrder(
            key=RequestKey(customer_id=job.customer_id, request_id=row.request_id),
            events=row.events,
        )
        for row in await tx.execute(waiting)
    ]


# --- Its results ----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class ItemResult:
    """What came of one item; `outcome` is None while nothing has.

    `line` is the provider's own, as it came: `{"custom_id": ..., "result": {"type": "succeeded",
    "message": {...}}}` and so on. What errored, expired or was cancelled is free and has no charge.
    """

    number: int
    request_id: str
    document: str | None
    outcome: ItemOutcome | None
    error_type: str | None
    error_message: str | None
    line: str | None
    cost_usd: Decimal | None
    charge_nano_usd: int | None


def _result_of_item() -> ColumnElement[bool]:
    return and_(
        col(BatchResult.job_id) == col(BatchItem.job_id),
        col(BatchResult.number) == col(BatchItem.number),
    )


async def results(tx: Transaction, job_id: str) -> AsyncGenerator[ItemResult, None]:
    """Yield every item of the job in its order, streamed: memory does not grow with the job."""
    statement = (
        select(
            col(BatchItem.number),
            col(BatchItem.request_id),
            col(BatchItem.document),
            col(BatchResult.outcome),
            col(BatchResult.error_type),
            col(BatchResult.error_message),
            col(BatchResult.line),
            col(UsageRecord.cost_usd),
            col(UsageRecord.charge_nano_usd),
        )
        .outerjoin(BatchResult, _result_of_item())
        .outerjoin(UsageRecord, col(UsageRecord.attempt_id) == col(BatchResult.attempt_id))
        .where(col(BatchItem.job_id) == job_id)
        .order_by(col(BatchItem.number))
    )
    async for row in await tx.stream(statement):
        outcome = None if row.outcome is None else ItemOutcome(row.outcome)
        yield ItemResult(*row[:3], outcome, *row[4:])
