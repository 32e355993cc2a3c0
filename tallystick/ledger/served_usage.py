"""What the ledger knows to have been served, added up in the database by place and bucket.

Three kinds of rows tell it. A usage record says what its reply said. A call that was answered and
has no record, because another call of its request was billed first, has its usage in its attempt. A
call of unknown outcome has what Anthropic's report has settled it to be, for as long as its outcome
stays unknown. A million records come back as a few rows an hour, in one pass over the interval.

Columns hold what is billed, at the reply's model. What is not billed, not priced, or was made in
several samplings is read from Claude's own usage object, by the rules of `pricing.usage`: the top
level, and beside it each iteration that it does not include, at the model of its own.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, text

from tallystick.ledger.database import Transaction
from tallystick.ledger.tables import OPEN_ATTEMPTS
from tallystick.pricing import TOKEN_KINDS, TokenCounts, TokenKind
from tallystick.pricing.usage import MAX_COUNT
from tallystick.reconciling.differences import NOT_SERVED, Served
from tallystick.reconciling.reported import At, place_of

_COLUMN = {kind: f"{kind}_tokens" for kind in TOKEN_KINDS} | {TokenKind.WEB_SEARCH: "web_searches"}


def _count(field: str) -> str:
    """Return the SQL of a count in `o.told`; one that is not plausible is none: it has no price."""
    told = f"o.told->{field}"
    return (
        f"CASE WHEN jsonb_typeof({told}) = 'number' "
        f"AND ({told})::numeric BETWEEN 0 AND {MAX_COUNT} THEN ({told})::numeric ELSE 0 END"
    )


_SHORT_WRITES = _count("'cache_creation'->'ephemeral_5m_input_tokens'")
_ALL_WRITES = _count("'cache_creation_input_tokens'")
_TOLD = {
    TokenKind.INPUT: _count("'input_tokens'"),
    TokenKind.OUTPUT: _count("'output_tokens'"),
    TokenKind.CACHE_WRITE_5M: (
        f"CASE jsonb_typeof(o.told->'cache_creation') WHEN 'object' THEN {_SHORT_WRITES} "
        f"ELSE {_ALL_WRITES} END"
    ),
    TokenKind.CACHE_WRITE_1H: _count("'cache_creation'->'ephemeral_1h_input_tokens'"),
    TokenKind.CACHE_READ: _count("'cache_read_input_tokens'"),
    TokenKind.WEB_SEARCH: _count("'server_tool_use'->'web_search_requests'"),
}
"""Each kind in a usage object, or in one of its iterations."""

BUCKET = "date_bin(:width, {}, '2000-01-01 00:00+00') AS at"
"""The SQL of the bucket that an instant is in."""
PLAIN = "status = 'priced' AND coalesce(evidence->'usage'->'iterations', 'null') IN ('null', '[]')"
"""Whether a record's columns tell all of it."""


def _dimensions(usage: str) -> str:
    names = ("service_tier", "inference_geo", "speed")
    return ", ".join(f"coalesce({usage}->>'{name}', '') AS {name}" for name in names)


_RECORDED = text(
    f"""
    SELECT {BUCKET.format("served_at")}, model, {_dimensions("evidence->'usage'")},
        {PLAIN} AS plain, count(*) AS requests,
        {", ".join(f"sum({column}) AS {kind}" for kind, column in _COLUMN.items())}
    FROM usage_records WHERE served_at >= :start AND served_at < :end
    GROUP BY 1, 2, 3, 4, 5, 6
    """  # noqa: S608 - of names from the code alone
)


def _as_told(rows: str) -> Any:
    """Return the statement that adds up usage objects: `rows` have at, model, usage and free."""
    return text(
        f"""
        SELECT {BUCKET.format("s.at")}, o.model, {_dimensions("s.usage")}, s.free,
            o.type = 'message' AND {_TOLD[TokenKind.OUTPUT]} = 0 AS declined,
            sum(o.requests) AS requests,
            {", ".join(f"sum({told}) AS {kind}" for kind, told in _TOLD.items())}
        FROM ({rows}) s CROSS JOIN LATERAL (
            SELECT s.model, s.usage AS told, 'top' AS type, 1 AS requests
            UNION ALL
            SELECT coalesce(i.told->>'model', s.model), i.told, i.told->>'type', 0
            FROM jsonb_array_elements(
                CASE jsonb_typeof(s.usage->'iterations')
                    WHEN 'array' THEN s.usage->'iterations' ELSE '[]'
                END
            ) i (told)
            WHERE i.told->>'type' IN ('compaction', 'advisor_message')
                OR (
                    i.told->>'type' IN ('message', 'fallback_message')
                    AND i.told->>'model' <> s.model
                )
        ) o
        GROUP BY 1, 2, 3, 4, 5, 6, 7
        """  # noqa: S608 - of names from the code alone
    )


_RECORDED_AS_TOLD = _as_told(
    f"""
    SELECT served_at AS at, model, evidence->'usage' AS usage, status = 'not_billed' AS free
    FROM usage_records WHERE served_at >= :start AND served_at < :end AND NOT ({PLAIN})
    """  # noqa: S608 - of names from the code alone
)
_ANSWERED = """
    SELECT a.finished_at AS at, a.model, a.usage, false AS free
    FROM attempts a
    WHERE a.outcome = 'succeeded' AND a.finished_at >= :start AND a.finished_at < :end
        AND NOT EXISTS (SELECT FROM usage_records u WHERE u.attempt_id = a.attempt_id)
"""
_SINGLE = _as_told(f"{_ANSWERED} AND a.started_at >= :begun AND a.started_at < :end")
# Where a create went unanswered, the items are in another batch as well, and both may be served.
_BATCHED = _as_told(
    f"""{_ANSWERED} AND a.started_at < :begun AND a.attempt_id IN (
        SELECT t.attempt_id
        FROM batch_shards s JOIN batch_tries t USING (job_id, shard)
        WHERE s.ended_at >= :start AND s.ended_at < :end
            AND EXISTS (
                SELECT FROM batch_shards l WHERE l.job_id = s.job_id AND l.lost_at IS NOT NULL
            )
    )"""  # noqa: S608 - of names from the code alone
)
_PLACE = ("model", "service_tier", "inference_geo", "speed")
_SETTLED = text(
    f"""
    SELECT {BUCKET.format("d.start_at")},
        {", ".join(f"coalesce(d.place->>'{name}', '') AS {name}" for name in _PLACE)},
        count(*) AS requests,
        {", ".join(f"sum(s.{column}) AS {kind}" for kind, column in _COLUMN.items())}
    FROM discrepancies d
    JOIN attempt_settlements s USING (discrepancy_id)
    JOIN attempts a USING (attempt_id)
    WHERE d.start_at >= :start AND d.start_at < :end AND s.served AND a.{OPEN_ATTEMPTS}
    GROUP BY 1, 2, 3, 4, 5
    """  # noqa: S608 - of names from the code alone
)


async def served(
    tx: Transaction, start: datetime, end: datetime, width: timedelta
) -> dict[At, Served]:
    """Return what records and settlements say of [start, end), by place and bucket of `width`."""
    span = {"start": start, "end": end, "width": width}
    recorded = (await tx.execute(_RECORDED, span)).all()
    sums: dict[At, Served] = {}
    for row in recorded:
        if row.plain:
            _add(sums, row, Served(_counts(row), row.requests))
    if not all(row.plain for row in recorded):
        await _add_as_told(tx, sums, _RECORDED_AS_TOLD, span)
    for row in await tx.execute(_SETTLED, span):
        _add(sums, row, Served(_counts(row), row.requests))
    return sums


async def answered_besides(
    tx: Transaction, start: datetime, end: datetime, width: timedelta, longest: timedelta
) -> dict[At, Served]:
    """Return what calls have used that were answered in [start, end) and have no record.

    Looked for only where the report has more than the records: no index leads to them.

    Args:
        tx: the transaction.
        start: from when on they were answered.
        end: until when.
        width: of a bucket.
        longest: how long before its answer a single call may have begun.
    """
    sums: dict[At, Served] = {}
    span = {"start": start, "end": end, "width": width, "begun": start - longest}
    for statement in (_SINGLE, _BATCHED):
        await _add_as_told(tx, sums, statement, span)
    return sums


async def _add_as_told(
    tx: Transaction, sums: dict[At, Served], statement: Any, span: dict[str, Any]
) -> None:
    for row in await tx.execute(statement, span):
        counts, requests = _counts(row), int(row.requests)
        if row.declined:
            _add(sums, row, Served(declined=counts))
        elif row.free:
            _add(sums, row, Served(counts, requests, free=counts, refused=requests))
        else:
            _add(sums, row, Served(counts, requests))


def _add(sums: dict[At, Served], row: Row[Any], more: Served) -> None:
    at = (place_of(*(getattr(row, name) for name in _PLACE)), row.at)
    sums[at] = sums.get(at, NOT_SERVED).plus(more)


def _counts(row: Row[Any]) -> TokenCounts:
    return TokenCounts(*(int(getattr(row, kind)) for kind in TokenKind))
