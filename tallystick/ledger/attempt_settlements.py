"""What calls of unknown outcome turned out to be, by Anthropic's report: our cost, nobody's charge.

A settlement is added once for each attempt and never changed. It holds as long as the attempt's own
outcome is unknown; an answer that turns up after all says more, and holds instead.

Calls that were served are settled as the repair of what the report has more than the ledger. Calls
that were not are settled where nothing is left over: where all of the time in which they can have
been served was compared, and nothing is reported of their model that is not explained.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Row, func, select, text
from sqlmodel import col

from tallystick.ledger import attempts
from tallystick.ledger.database import Transaction
from tallystick.ledger.reconciliation_tables import AttemptSettlement, Reconciliation
from tallystick.ledger.tables import OPEN_ATTEMPTS, Attempt, Outcome
from tallystick.pricing import TOKEN_KINDS, TokenKind, price_book
from tallystick.reconciling.edges import NEAR
from tallystick.reconciling.findings import Kind, Pair
from tallystick.reconciling.open_batches import SERVED_FOR
from tallystick.reconciling.reported import BATCH

COMPARED = "compared"
"""How a run stands that was compared with Anthropic's usage report."""
_LOOK_BACK = timedelta(days=3)
"""Longer than any call or batch can take."""

_COUNTS = (*(f"{kind}_tokens" for kind in TOKEN_KINDS), "web_searches")
_INSERT = f"""
    INSERT INTO attempt_settlements (
        attempt_id, discrepancy_id, reconciliation_id, settled_at, served, {", ".join(_COUNTS)},
        cost_usd, shared, words
    )
"""


# --- Reading --------------------------------------------------------------------------------------
_HOLDS = col(Attempt.outcome).in_([Outcome.STARTED, Outcome.INDETERMINATE])


async def by_customer(
    tx: Transaction,
    customer_id: str | None = None,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
) -> Sequence[Row[str, int, Decimal]]:
    """Return each customer with settled calls: `settled`, how many, and their `cost` in dollars.

    Of all times, or of calls begun in [start, end).
    """
    statement = (
        select(
            col(Attempt.customer_id),
            func.count().label("settled"),
            func.sum(col(AttemptSettlement.cost_usd)).label("cost"),
        )
        .join(AttemptSettlement, col(AttemptSettlement.attempt_id) == col(Attempt.attempt_id))
        .where(*attempts.begun(customer_id, start, end), _HOLDS)
        .group_by(col(Attempt.customer_id))
    )
    return (await tx.execute(statement)).all()


# --- Served ---------------------------------------------------------------------------------------
_SETTLE = text(
    f"""
    {_INSERT}
    SELECT a.attempt_id, :discrepancy_id, :reconciliation_id, :at, true,
        {", ".join(f":{name}" for name in _COUNTS)}, :cost_usd, :shared, :words
    FROM attempts a WHERE a.attempt_id = :attempt_id AND a.{OPEN_ATTEMPTS}
    ON CONFLICT DO NOTHING
    """  # noqa: S608 - of names from the code alone
)
# Each item's share ends where the weights so far do, rounded down: the shares add up to the whole.
_SHARE = "div(:{0} * upto, whole) - div(:{0} * (upto - weight), whole)"
_COST = " + ".join(
    f"{name} * CAST(:unit_{kind} AS numeric)" for name, kind in zip(_COUNTS, TokenKind, strict=True)
)
_SETTLE_ITEMS = text(
    f"""
    WITH items AS (
        SELECT a.attempt_id, a.outcome, t.number,
            greatest(a.estimated_input_tokens, 1)::numeric AS weight
        FROM batch_shards s
        JOIN batch_tries t ON t.job_id = s.job_id AND t.shard = s.shard
            AND t.number BETWEEN s.first_number AND s.last_number
        JOIN attempts a USING (attempt_id)
        WHERE s.job_id = :job_id AND s.shard = :shard AND a.model = ANY(:models)
        ORDER BY t.number
        OFFSET :first LIMIT :items
    ), weighed AS (
        SELECT *, sum(weight) OVER (ORDER BY number) AS upto, sum(weight) OVER () AS whole
        FROM items
    ), shared AS (
        SELECT attempt_id, {", ".join(f"{_SHARE.format(name)} AS {name}" for name in _COUNTS)}
        FROM weighed WHERE {OPEN_ATTEMPTS}
    )
    {_INSERT}
    SELECT attempt_id, :discrepancy_id, :reconciliation_id, :at, true, {", ".join(_COUNTS)},
        {_COST}, :shared, :words
    FROM shared
    ON CONFLICT DO NOTHING
    """  # noqa: S608 - of names from the code alone
)


async def settle(
    tx: Transaction,
    *,
    reconciliation_id: int,
    discrepancy_id: int,
    subject: str,
    facts: Mapping[str, Any],
    at: datetime,
) -> int:
    """Book what a proposal `settle_attempts` says of a subject; returns for how many attempts.

    A subject is an attempt's id, or names a number of items of a lost batch; `facts` are the
    proposal's. Repeating it does nothing, and nothing is booked for an attempt whose outcome is
    known by now.
    """
    parameters: dict[str, Any] = {
        "reconciliation_id": reconciliation_id,
        "discrepancy_id": discrepancy_id,
        "at": at,
        **{name: facts[name] for name in (*_COUNTS, "shared", "words")},
    }
    if "shard" not in facts:
        of_one = {"attempt_id": int(subject), "cost_usd": Decimal(facts["cost_usd"])}
        return (await tx.execute(_SETTLE, parameters | of_one)).rowcount
    of_items = {name: facts[name] for name in ("job_id", "shard", "models", "first", "items")}
    units = {f"unit_{kind}": Decimal(unit) for kind, unit in facts["unit_usd"].items()}
    return (await tx.execute(_SETTLE_ITEMS, parameters | of_items | units)).rowcount


# --- Not served -----------------------------------------------------------------------------------
# A discrepancy keeps the calls whose usage it may be, and those that its proposal names.
_SETTLE_REST = text(
    f"""
    WITH calls AS (
        SELECT attempt_id, model, started_at - CAST(:near AS interval) AS begun,
            greatest(started_at + CAST(:longest AS interval), finished_at)
                + CAST(:near AS interval) AS until,
            CAST(NULL AS text) AS job_id, CAST(NULL AS integer) AS shard
        FROM attempts a
        WHERE {OPEN_ATTEMPTS} AND started_at >= :since AND started_at < :end
            AND NOT EXISTS (SELECT FROM batch_tries t WHERE t.attempt_id = a.attempt_id)
        UNION ALL
        SELECT a.attempt_id, a.model, s.sent_at - CAST(:near AS interval),
            s.sent_at + CAST(:batch_longest AS interval) + CAST(:near AS interval),
            s.job_id, s.shard
        FROM batch_shards s
        JOIN batch_tries t ON t.job_id = s.job_id AND t.shard = s.shard
            AND t.number BETWEEN s.first_number AND s.last_number
        JOIN attempts a USING (attempt_id)
        WHERE s.state = 'lost' AND s.sent_at >= :since AND s.sent_at < :end AND a.{OPEN_ATTEMPTS}
    )
    {_INSERT}
    SELECT c.attempt_id, NULL, :reconciliation_id, :at, false,
        {", ".join("0" for _ in _COUNTS)}, 0, false, 'not served, by Anthropic''s usage report'
    FROM calls c
    LEFT JOIN unnest(CAST(:names AS text[]), CAST(:ids AS text[])) AS m (name, id)
        ON m.name = c.model
    WHERE c.begun >= :since AND c.until <= :end
        AND NOT EXISTS (SELECT FROM attempt_settlements e WHERE e.attempt_id = c.attempt_id)
        AND NOT EXISTS (
            SELECT FROM discrepancies d
            WHERE d.pair = '{Pair.CLAUDE_LEDGER}' AND d.kind = '{Kind.UNRECORDED_USAGE}'
                AND d.state = 'open' AND d.start_at < c.until AND d.end_at > c.begun
                AND d.place->>'model' = coalesce(m.id, c.model)
                AND (d.place->>'service_tier' = '{BATCH}') = (c.job_id IS NOT NULL)
                AND (
                    d.proposal IS NULL
                    OR jsonb_exists(d.proposal->'subjects', CAST(c.attempt_id AS text))
                    OR c.job_id IS NOT NULL AND EXISTS (
                        SELECT FROM jsonb_each(d.proposal->'subjects') p
                        WHERE p.value->>'job_id' = c.job_id
                            AND CAST(p.value->>'shard' AS integer) = c.shard
                    )
                )
        )
    ON CONFLICT DO NOTHING
    """  # noqa: S608 - of names from the code alone
)


async def settle_not_served(
    tx: Transaction, *, reconciliation_id: int, end: datetime, longest: timedelta, at: datetime
) -> int:
    """Settle the calls that were not served, now that all until `end` is compared.

    Returns how many they are.

    Args:
        tx: the transaction; the run's own findings are in it or before it.
        reconciliation_id: the run that has compared.
        end: until when it has.
        longest: how long a single call may take.
        at: the instant.
    """
    names = price_book().models
    parameters = {
        "reconciliation_id": reconciliation_id,
        "since": await _compared_since(tx, end),
        "end": end,
        "longest": longest,
        "batch_longest": SERVED_FOR,
        "near": NEAR,
        "names": list(names),
        "ids": [model.id for model in names.values()],
        "at": at,
    }
    return (await tx.execute(_SETTLE_REST, parameters)).rowcount


async def _compared_since(tx: Transaction, end: datetime) -> datetime:
    """Return since when runs have compared, without a gap until `end`."""
    statement = (
        select(col(Reconciliation.start_at), col(Reconciliation.end_at))
        .where(
            col(Reconciliation.claude_state) == COMPARED,
            col(Reconciliation.end_at) > end - _LOOK_BACK,
        )
        .order_by(col(Reconciliation.end_at).desc())
    )
    since = end
    for run in await tx.execute(statement):
        if run.end_at < since:
            break
        since = min(since, run.start_at)
    return since
