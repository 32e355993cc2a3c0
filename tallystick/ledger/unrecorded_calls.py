"""Calls without a record that may have been served all the same: what reconciliation can settle.

Looked for only where Anthropic's report has more than the ledger. A single call comes as it is;
the items of a batch come as one row for each model of their shard, since there can be a hundred
thousand of them.
"""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, TextClause, text

from tallystick.ledger.database import Transaction
from tallystick.ledger.tables import OPEN_ATTEMPTS, Outcome
from tallystick.pricing import TokenCounts
from tallystick.pricing.usage import UnreadableError, read_usage
from tallystick.reconciling.differences import NOTHING
from tallystick.reconciling.edges import NEAR
from tallystick.reconciling.lost_calls import Call, Known
from tallystick.reconciling.open_batches import SERVED_FOR, OpenBatch
from tallystick.reconciling.reported import Place, model_of, names_of, place_of

MOST = 20_000
"""Calls that are looked at in one go, those of unknown outcome first; an hour without any network
has fewer, since each request gives up after a few."""

_CALLS = text("""
SELECT a.attempt_id, a.customer_id, a.request_id, a.model, a.outcome, a.started_at, a.finished_at,
    a.estimated_input_tokens, a.usage, s.attempt_id IS NOT NULL AS settled
FROM attempts a LEFT JOIN attempt_settlements s USING (attempt_id)
WHERE a.started_at >= :begun AND a.started_at < :end AND a.model = ANY(:models)
    AND a.outcome <> 'succeeded' AND s.served IS NOT TRUE
    AND NOT EXISTS (SELECT FROM batch_tries t WHERE t.attempt_id = a.attempt_id)
ORDER BY a.outcome = 'failed', a.attempt_id
LIMIT :most
""")
_BATCHES = """
SELECT s.job_id, s.shard, j.customer_id, a.model, {since} AS since, {until} AS until,
    count(*) AS items, count(*) FILTER (WHERE e.served) AS settled,
    sum(a.estimated_input_tokens) AS estimated
FROM batch_shards s
JOIN batch_jobs j USING (job_id)
JOIN batch_tries t ON t.job_id = s.job_id AND t.shard = s.shard
    AND t.number BETWEEN s.first_number AND s.last_number
JOIN attempts a USING (attempt_id)
LEFT JOIN attempt_settlements e USING (attempt_id)
WHERE s.state IN ({states}) AND {until} >= :start AND {since} < :end AND a.{open_attempts}
GROUP BY s.job_id, s.shard, j.customer_id, a.model
"""
_EXPIRES = "s.sent_at + CAST(:served_for AS interval)"
_LOST = text(
    _BATCHES.format(states="'lost'", since="s.sent_at", until=_EXPIRES, open_attempts=OPEN_ATTEMPTS)
)
_UNREAD = text(
    _BATCHES.format(
        states="'sent', 'running', 'ended'",
        since="coalesce(s.ended_at, s.sent_at)",
        until=f"coalesce(s.ended_at, {_EXPIRES})",
        open_attempts=OPEN_ATTEMPTS,
    )
)


async def calls(
    tx: Transaction,
    models: Collection[str],
    start: datetime,
    end: datetime,
    *,
    longest: timedelta,
    now: datetime,
) -> list[Call]:
    """Return the single calls to these models that may have been served in [start, end).

    Args:
        tx: the transaction.
        models: the price book's ids.
        start: from when on.
        end: until when.
        longest: how long a call may take.
        now: a call that began longer ago than that and has not ended was abandoned.
    """
    parameters = {
        "models": [name for model in models for name in names_of(model)],
        "begun": start - longest - NEAR,
        "end": end + NEAR,
        "most": MOST,
    }
    rows = await tx.execute(_CALLS, parameters)
    return [_call(row, longest, abandoned=now - longest - NEAR) for row in rows]


def _call(row: Row[Any], longest: timedelta, *, abandoned: datetime) -> Call:
    at_least, told = _told(row.model, row.usage)
    known = Known.NOT_SERVED if row.settled else Known.NOTHING
    until = max(row.started_at + longest, row.finished_at or row.started_at)
    if row.outcome == Outcome.FAILED:
        known, until = Known.FAILED, row.finished_at or until
    elif row.outcome == Outcome.STARTED and row.started_at >= abandoned:
        known = Known.IN_FLIGHT
    return Call(
        attempt_id=row.attempt_id,
        customer_id=row.customer_id,
        request_id=row.request_id,
        known=known,
        model=model_of(row.model),
        started_at=row.started_at,
        until=until,
        estimated_prompt=row.estimated_input_tokens,
        at_least=at_least,
        told=told,
    )


def _told(model: str, usage: Mapping[str, Any] | None) -> tuple[TokenCounts, Place | None]:
    """Return what a stream had told before it broke, and where that was served."""
    if usage is None:
        return NOTHING, None
    try:
        read = read_usage(usage, model)
    except UnreadableError:
        return NOTHING, None
    own = next((portion.counts for portion in read.portions if portion.model == model), NOTHING)
    names = ("service_tier", "inference_geo", "speed")
    told = [str(usage.get(name) or "") for name in names]
    return own._replace(web_search=read.web_searches), place_of(model, *told)


async def lost_batches(tx: Transaction, start: datetime, end: datetime) -> list[OpenBatch]:
    """Return what was lost with batches that may have been served in [start, end)."""
    return await _batches(tx, _LOST, start, end)


async def unread_batches(tx: Transaction, start: datetime, end: datetime) -> list[OpenBatch]:
    """Return what has no results yet of batches that may have been served in [start, end)."""
    return await _batches(tx, _UNREAD, start, end)


async def _batches(
    tx: Transaction, statement: TextClause, start: datetime, end: datetime
) -> list[OpenBatch]:
    span = {"start": start - NEAR, "end": end + NEAR, "served_for": SERVED_FOR}
    return [
        OpenBatch(
            job_id=row.job_id,
            shard=row.shard,
            customer_id=row.customer_id,
            model=model_of(row.model),
            since=row.since,
            until=row.until,
            items=row.items,
            settled=row.settled,
            estimated_prompt=int(row.estimated),
        )
        for row in await tx.execute(statement, span)
    ]
