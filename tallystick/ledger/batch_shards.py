"""Shards: how a job's items are put into batches at the provider, each sent once.

Every change here is conditional on the state it starts from, so of two workers that both believe to
be in charge the second one changes nothing and is told so. A shard is committed with its attempts
before anything is sent, and `sent` is committed before the create: a worker that finds a shard in
that state knows that a create may be out whose answer nobody heard.
"""

from collections.abc import AsyncGenerator, Collection, Mapping
from datetime import datetime

from sqlalchemy import ColumnElement, exists, select, text, update
from sqlmodel import col

from tallystick.errors import CANCELLED, Failure
from tallystick.ledger import batches
from tallystick.ledger.batch_tables import (
    BatchItem,
    BatchJob,
    BatchShard,
    BatchTry,
    ShardState,
)
from tallystick.ledger.database import Transaction, entity
from tallystick.ledger.tables import Outcome
from tallystick.plans.batching import ShardLimits

# --- Planning -------------------------------------------------------------------------------------
# One statement: the items that have no result and are in no open shard, as many as fit into one,
# each with its next attempt. At least one item, however large it is.
_PLAN = text("""
WITH waiting AS (
    SELECT i.*, sum(i.body_bytes) OVER (ORDER BY i.number) AS bytes_so_far
    FROM (
        SELECT * FROM batch_items item
        WHERE item.job_id = :job_id AND item.number >= :start
            AND (
                SELECT r.number FROM batch_results r
                WHERE r.job_id = item.job_id AND r.number = item.number
                LIMIT 1
            ) IS NULL
            AND (
                SELECT t.number FROM batch_tries t JOIN batch_shards s USING (job_id, shard)
                WHERE t.job_id = item.job_id AND t.number = item.number AND s.lost_at IS NULL
                    AND s.state IN ('planned', 'sent', 'running', 'ended')
                LIMIT 1
            ) IS NULL
        ORDER BY item.number
        LIMIT :requests
    ) i
), chosen AS MATERIALIZED (
    -- Numbered here, so that attempts and tries need not be brought together afterwards.
    SELECT *, nextval(pg_get_serial_sequence('attempts', 'attempt_id')) AS attempt_id
    FROM waiting
    WHERE bytes_so_far <= :body_bytes OR bytes_so_far = waiting.body_bytes
), made AS (
    INSERT INTO batch_shards (
        job_id, shard, state, items, first_number, last_number, planned_at, not_ours, lines_read,
        bytes_read, chunks, tallied, succeeded, errored, expired, canceled, cost_usd,
        charge_nano_usd, saved_nano_usd
    )
    SELECT :job_id,
        (SELECT coalesce(max(shard), 0) + 1 FROM batch_shards WHERE job_id = :job_id),
        'planned', count(*), min(number), max(number), :at, '[]', 0,
        0, 0, '{}', 0, 0, 0, 0, 0,
        0, 0
    FROM chosen
    HAVING count(*) > 0
    RETURNING shard
), begun AS (
    INSERT INTO attempts (
        attempt_id, customer_id, request_id, number, fingerprint, model, estimated_input_tokens,
        prompt_chars, outcome, started_at
    )
    SELECT attempt_id, customer_id, request_id,
        (
            SELECT coalesce(max(a.number), 0) + 1 FROM attempts a
            WHERE a.customer_id = chosen.customer_id AND a.request_id = chosen.request_id
        ),
        fingerprint, model, estimated_input_tokens, prompt_chars, 'started', :at
    FROM chosen
), tried AS (
    INSERT INTO batch_tries (job_id, number, shard, round, attempt_id)
    SELECT :job_id, chosen.number, made.shard,
        (
            SELECT coalesce(max(t.round), 0) + 1
            FROM batch_tries t JOIN batch_shards s USING (job_id, shard)
            WHERE t.job_id = :job_id AND t.number = chosen.number AND s.lost_at IS NULL
        ),
        chosen.attempt_id
    FROM chosen CROSS JOIN made
)
SELECT shard FROM made
""")


async def plan(
    tx: Transaction, job_id: str, limits: ShardLimits, at: datetime, *, start: int = 0
) -> BatchShard | None:
    """Put the next items that wait into a shard, with an attempt for each; None where none do.

    A job that was cancelled has none. Holds the job's row, so that no item is planned twice.

    Args:
        tx: the transaction.
        job_id: whose.
        limits: how much goes into one shard.
        at: the instant.
        start: the number of the first item to look at, where those before are known not to wait.
    """
    job = await batches.get(tx, job_id, locked=True)
    if job is None or job.cancelled_at is not None:
        return None
    await by_index(tx)
    parameters = {
        "job_id": job_id,
        "start": start,
        "requests": limits.requests,
        "body_bytes": limits.body_bytes,
        "at": at,
    }
    shard = (await tx.execute(_PLAN, parameters)).scalar_one_or_none()
    return None if shard is None else await get(tx, job_id, shard)


_BY_INDEX = text(
    "SELECT set_config(name, 'off', true) "
    "FROM unnest(ARRAY['enable_seqscan', 'enable_hashjoin', 'enable_mergejoin']) name"
)


OPEN = "a.outcome || '' IN ('started', 'indeterminate')"
"""The attempts `a` that have no outcome yet, as a condition that no index answers.

Between two jobs the statistics know finished attempts alone, and then the index of open ones looks
empty: PostgreSQL would go through all of it, 100,000 entries, for each attempt that it looks up.
"""


async def by_index(tx: Transaction) -> None:
    """Have the transaction look rows up one by one.

    PostgreSQL knows nothing of tables that were filled a moment ago, and would rather read all of
    the ledger than look up a thousand rows in it.
    """
    await tx.execute(_BY_INDEX)


async def bodies(tx: Transaction, shard: BatchShard) -> AsyncGenerator[tuple[int, str], None]:
    """Yield number and params of the shard's items in their order, streamed."""
    statement = (
        select(col(BatchItem.number), col(BatchItem.params))
        .join(
            BatchTry,
            (col(BatchTry.job_id) == col(BatchItem.job_id))
            & (col(BatchTry.number) == col(BatchItem.number)),
        )
        .where(*_tries_of(shard))
        .order_by(col(BatchItem.number))
    )
    async for number, params in await tx.stream(statement):
        assert params is not None  # noqa: S101 - kept until the job is finished
        yield number, params


def _tries_of(shard: BatchShard) -> tuple[ColumnElement[bool], ...]:
    return (
        col(BatchTry.job_id) == shard.job_id,
        col(BatchTry.number).between(shard.first_number, shard.last_number),
        col(BatchTry.shard) == shard.shard,
    )


# --- Reading --------------------------------------------------------------------------------------
async def get(tx: Transaction, job_id: str, shard: int, *, locked: bool = False) -> BatchShard:
    """Return a shard; shards are never removed."""
    statement = select(BatchShard).where(
        col(BatchShard.job_id) == job_id, col(BatchShard.shard) == shard
    )
    row = (await tx.execute(statement.with_for_update() if locked else statement)).one()
    return entity(BatchShard, row)


async def in_state(tx: Transaction, job_id: str, *states: ShardState) -> list[BatchShard]:
    """Return the job's shards in one of these states, in their order."""
    statement = (
        select(BatchShard)
        .where(col(BatchShard.job_id) == job_id, col(BatchShard.state).in_(states))
        .order_by(col(BatchShard.shard))
    )
    return [entity(BatchShard, row) for row in await tx.execute(statement)]


async def any_lost(tx: Transaction, job_id: str) -> bool:
    """Tell whether some shard of the job was ever given up."""
    lost = exists().where(col(BatchShard.job_id) == job_id, col(BatchShard.lost_at).is_not(None))
    return (await tx.execute(select(lost))).scalar_one()


async def known(tx: Transaction, batch_ids: Collection[str]) -> set[str]:
    """Return which of these batches belong to some shard."""
    statement = select(col(BatchShard.batch_id)).where(col(BatchShard.batch_id).in_(batch_ids))
    return {row.batch_id for row in await tx.execute(statement)}


# --- From one state to the next -------------------------------------------------------------------
async def set_sent(tx: Transaction, shard: BatchShard, at: datetime) -> bool:
    """Note that a create is about to go out; False where it may not: cancelled, or sent before."""
    cancelled = exists().where(
        col(BatchJob.job_id) == shard.job_id, col(BatchJob.cancelled_at).is_not(None)
    )
    return await _move(
        tx, shard, [ShardState.PLANNED], ~cancelled, state=ShardState.SENT, sent_at=at
    )


async def set_unsent(tx: Transaction, shard: BatchShard) -> None:
    """Note that the provider has refused the create for now, for certain: it may go out again."""
    await _move(tx, shard, [ShardState.SENT], state=ShardState.PLANNED, sent_at=None)


async def set_running(
    tx: Transaction, shard: BatchShard, batch_id: str, begun_at: datetime, expires_at: datetime
) -> bool:
    """Note which batch is the shard's; False where it has one, or was given up.

    A lost shard whose batch turns up gets it here too.
    """
    return await _move(
        tx,
        shard,
        [ShardState.SENT, ShardState.LOST],
        col(BatchShard.batch_id).is_(None),
        state=ShardState.RUNNING,
        batch_id=batch_id,
        begun_at=begun_at,
        expires_at=expires_at,
    )


async def set_not_ours(tx: Transaction, shard: BatchShard) -> None:
    """Note that the batch taken for the shard's is somebody else's: it is looked for again."""
    await _move(
        tx,
        shard,
        [ShardState.RUNNING, ShardState.ENDED],
        state=ShardState.SENT if shard.lost_at is None else ShardState.LOST,
        not_ours=[*shard.not_ours, shard.batch_id],
        batch_id=None,
        begun_at=None,
        expires_at=None,
        ended_at=None,
        request_counts=None,
    )


async def set_ended(
    tx: Transaction, shard: BatchShard, ended_at: datetime, counts: Mapping[str, int]
) -> None:
    """Note when the provider was done with the shard's batch, and its counts by type."""
    await _move(
        tx,
        shard,
        [ShardState.RUNNING],
        state=ShardState.ENDED,
        ended_at=ended_at,
        request_counts=dict(counts),
    )


async def set_settled(tx: Transaction, shard: BatchShard) -> None:
    """Note that all of the shard's results are read."""
    await _move(tx, shard, [ShardState.ENDED], state=ShardState.SETTLED)


async def give_up(tx: Transaction, shard: BatchShard, at: datetime, why: str) -> bool:
    """Give up a shard whose batch was not found: its calls are of unknown outcome from now on."""
    lost = await _move(tx, shard, [ShardState.SENT], state=ShardState.LOST, lost_at=at, trouble=why)
    if lost:
        await _end_attempts(
            tx, shard, Outcome.INDETERMINATE, at=at, error_type="BatchLost", why=why
        )
    return lost


async def drop(tx: Transaction, shard: BatchShard, at: datetime) -> None:
    """Drop a shard that was not sent when its job was cancelled."""
    if await _move(tx, shard, [ShardState.PLANNED], state=ShardState.DROPPED):
        why = "the job was cancelled before it was sent"
        await _end_attempts(tx, shard, Outcome.FAILED, at=at, error_type=CANCELLED.type, why=why)


async def refuse(tx: Transaction, shard: BatchShard, at: datetime, row: Failure, why: str) -> None:
    """Note that the provider refused the shard as a whole; its items are errored for good."""
    refused = await _move(
        tx,
        shard,
        [ShardState.SENT],
        state=ShardState.REFUSED,
        errored=shard.items,
        trouble=why,
    )
    if refused:
        await _end_attempts(tx, shard, Outcome.FAILED, at=at, error_type=row.type, why=why)
        await tx.execute(
            _REFUSE_ITEMS, {**range_of(shard), "error_type": row.type, "error_message": why}
        )


async def change(tx: Transaction, shard: BatchShard, **values: object) -> None:
    """Write columns of a shard whose row the caller has locked."""
    await _move(tx, shard, list(ShardState), **values)


async def _move(
    tx: Transaction,
    shard: BatchShard,
    states: Collection[ShardState],
    *only: ColumnElement[bool],
    **values: object,
) -> bool:
    statement = update(BatchShard).where(
        col(BatchShard.job_id) == shard.job_id,
        col(BatchShard.shard) == shard.shard,
        col(BatchShard.state).in_(states),
        *only,
    )
    return (await tx.execute(statement.values(**values))).rowcount > 0


# Written out: the condition on tries is `_tries_of`.
_END_ATTEMPTS = text(f"""
UPDATE attempts a
SET outcome = :outcome, finished_at = :at, error_type = :error_type, error_message = :error_message
FROM batch_tries t
WHERE t.job_id = :job_id AND t.number BETWEEN :first_number AND :last_number AND t.shard = :shard
    AND a.attempt_id = t.attempt_id AND {OPEN}
""")  # noqa: S608 - of a condition of our own
_REFUSE_ITEMS = text("""
INSERT INTO batch_results (job_id, number, outcome, attempt_id, error_type, error_message)
SELECT t.job_id, t.number, 'errored', t.attempt_id, :error_type, :error_message
FROM batch_tries t
WHERE t.job_id = :job_id AND t.number BETWEEN :first_number AND :last_number AND t.shard = :shard
ON CONFLICT DO NOTHING
""")


async def _end_attempts(
    tx: Transaction,
    shard: BatchShard,
    outcome: Outcome,
    *,
    at: datetime,
    error_type: str,
    why: str,
) -> None:
    ended = {"outcome": outcome, "at": at, "error_type": error_type, "error_message": why}
    await tx.execute(_END_ATTEMPTS, {**range_of(shard), **ended})


def range_of(shard: BatchShard) -> dict[str, object]:
    """Return the parameters of statements about the tries of one shard."""
    names = ("job_id", "shard", "first_number", "last_number")
    return {name: getattr(shard, name) for name in names}
