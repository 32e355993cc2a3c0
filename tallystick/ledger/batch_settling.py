"""Settling: the results of a batch become usage records, a chunk of the file at a time.

A chunk is one transaction: attempts are completed, records and last words are written, the wallet
is burnt, the job's reservation shrinks, the meters are told the sum, and the cursor moves. All that
follows from the attempts which this very transaction completes. An attempt is completed once, so
lines that are read again do nothing, whoever reads them and in whatever order: the sum of the meter
events is the sum of the records, and no request has two.

The shard's row is locked first, so two readers of one file take turns. A chunk that is charged gets
the next number of its shard, and its meter events that number's identifiers.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, bindparam, func, literal, select, text, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import col

from tallystick.contracts import RequestKey
from tallystick.ledger import accounts, batch_shards, batches, contents, outbox, prepaid
from tallystick.ledger.batch_tables import BatchJob, BatchShard, ItemOutcome
from tallystick.ledger.copying import copying
from tallystick.ledger.database import Transaction
from tallystick.ledger.tables import Reservation
from tallystick.ledger.terms import TermsInForce
from tallystick.metering import meter_values
from tallystick.money import EXACT, from_nano_usd, times, to_nano_usd
from tallystick.plans import PlanTerms
from tallystick.plans.batching import MAX_ROUNDS
from tallystick.pricing import TOKEN_KINDS, TokenKind, price_book

# --- What is copied in ----------------------------------------------------------------------------
COLUMNS = {
    "number": "integer",
    "outcome": "text",
    "passes": "boolean",
    "error_type": "text",
    "error_message": "text",
    "line": "text",
    "message_id": "text",
    "model": "text",
    "stop_reason": "text",
    "partial": "boolean",
    "response_chars": "integer",
    **{f"{kind}_tokens": "bigint" for kind in TOKEN_KINDS},
    "web_searches": "bigint",
    "evidence": "jsonb",
    "status": "text",
    "reason": "text",
    "price_book": "text",
    "cost_usd": "numeric",
    "charge_nano_usd": "bigint",
    "lines": "jsonb",
    "explanation": "text",
}
"""One line of the file, read and rated: what is copied, in this order. `number` is the item's,
`outcome` the type of its result, `passes` whether it may succeed when it is sent again. From
`message_id` on only what succeeded has a value."""

_TOKENS = ", ".join(f"{kind}_tokens" for kind in TOKEN_KINDS)
_TABLE = text(
    "CREATE TEMPORARY TABLE IF NOT EXISTS settling ("
    + ", ".join(f"{name} {type_}" for name, type_ in COLUMNS.items())
    # Of its rows, which live for one statement, none is worth compressing.
    + ") WITH (toast_tuple_target = 8160) ON COMMIT DELETE ROWS"
)
_COPY = f"COPY settling ({', '.join(COLUMNS)}) FROM STDIN"


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some lines of a file in the text format of COPY, and where in the file they are."""

    rows: bytes
    lines: int
    from_byte: int
    to_byte: int


@dataclass(frozen=True, slots=True)
class Billing:
    """By what all of a batch is billed: one instant, one set of terms.

    `doubled` says that an item may have been served twice, since a create was lost; `keeps_content`
    that what was said is to be kept, if that is still so when a chunk is settled.
    """

    job: BatchJob
    agreed: TermsInForce
    ended_at: datetime
    doubled: bool
    keeps_content: bool = False


# --- One statement for the rows -------------------------------------------------------------------
_SETTLE = text(
    f"""
WITH ended AS (
    UPDATE attempts a
    SET outcome = CASE s.outcome WHEN 'succeeded' THEN 'succeeded' ELSE 'failed' END,
        finished_at = :ended_at,
        claude_request_id = :batch_id,
        message_id = s.message_id,
        usage = CASE WHEN :doubled THEN s.evidence -> 'usage' END,
        error_type = s.error_type,
        error_message = s.error_message
    FROM settling s CROSS JOIN LATERAL (
        SELECT attempt_id, round FROM batch_tries
        WHERE job_id = :job_id AND number = s.number AND shard = :shard
        LIMIT 1  -- keeps the lookup from becoming a join in the wrong order
    ) t CROSS JOIN LATERAL (
        SELECT document, highest_cost_usd FROM batch_items
        WHERE job_id = :job_id AND number = s.number
        LIMIT 1
    ) i
    WHERE a.attempt_id = t.attempt_id AND {batch_shards.OPEN}
    RETURNING a.attempt_id, a.request_id, a.fingerprint, a.model AS asked_model, a.prompt_chars,
        a.number AS attempts, t.round, i.document, i.highest_cost_usd, s.*
), recorded AS (
    INSERT INTO usage_records (
        customer_id, request_id, attempt_id, attempts, fingerprint, served_at, billed_at, model,
        message_id, claude_request_id, stop_reason, partial, prompt_chars, response_chars,
        {_TOKENS}, web_searches, evidence, status, reason, price_book, plan, plan_valid_from,
        customer_terms_from, cost_usd, charge_nano_usd, lines, explanation, warnings,
        caller_metadata
    )
    SELECT CAST(:customer_id AS varchar), e.request_id, e.attempt_id,
        CASE WHEN :doubled THEN (
            SELECT count(*) FROM attempts c
            WHERE c.customer_id = :customer_id AND c.request_id = e.request_id
        ) ELSE e.attempts END,  -- without a doubled one, the last attempt is the one that ends
        e.fingerprint, :ended_at, :billed_at, coalesce(nullif(e.model, ''), e.asked_model),
        e.message_id, :batch_id, e.stop_reason, e.partial, e.prompt_chars, e.response_chars,
        {_TOKENS}, e.web_searches, e.evidence, e.status, e.reason, e.price_book, :plan, :plan_from,
        CAST(:own_from AS timestamptz), e.cost_usd, e.charge_nano_usd, e.lines, e.explanation, '[]',
        nullif(
            coalesce(:caller_metadata, '{{}}') || CASE
                WHEN e.document IS NULL THEN '{{}}'
                ELSE jsonb_build_object('document', e.document)
            END,
            '{{}}'
        )
    FROM ended e
    WHERE e.outcome = 'succeeded'
    ON CONFLICT (customer_id, request_id) DO NOTHING
    RETURNING cost_usd, charge_nano_usd, {_TOKENS}, web_searches
), last_words AS (
    INSERT INTO batch_results (
        job_id, number, outcome, attempt_id, error_type, error_message, metered_as, line
    )
    SELECT :job_id, number, outcome, attempt_id, error_type, error_message,
        CASE outcome WHEN 'succeeded' THEN CAST(:chunk_id AS varchar) END, line
    FROM ended
    WHERE outcome = 'succeeded' OR NOT (:lost OR (passes AND round < :rounds))
    ON CONFLICT DO NOTHING
    RETURNING number, outcome
)
SELECT told.*, booked.*, said.*, freed.*
FROM (
    SELECT coalesce(jsonb_object_agg(outcome, items), '{{}}') AS tallied
    FROM (SELECT outcome, count(*) AS items FROM ended GROUP BY outcome) by_type
) told, (
    SELECT (SELECT count(*) FROM recorded) AS records,
        coalesce(sum(cost_usd), 0) AS cost_usd,
        coalesce(sum(charge_nano_usd), 0)::bigint AS charge_nano_usd,
        {", ".join(f"coalesce(sum({kind}_tokens), 0)::bigint AS {kind}" for kind in TOKEN_KINDS)},
        coalesce(sum(web_searches), 0)::bigint AS web_searches
    FROM (SELECT * FROM recorded WHERE charge_nano_usd IS NOT NULL) priced
) booked, (
    SELECT count(*) FILTER (WHERE outcome = 'succeeded') AS succeeded,
        count(*) FILTER (WHERE outcome = 'errored') AS errored,
        count(*) FILTER (WHERE outcome = 'expired') AS expired,
        count(*) FILTER (WHERE outcome = 'canceled') AS canceled
    FROM last_words
) said, (
    SELECT coalesce(sum(highest_cost_usd), 0) AS freed_usd
    FROM ended
    WHERE (outcome = 'succeeded' OR NOT (:lost OR (passes AND round < :rounds)))
        AND (NOT :doubled OR number IN (SELECT number FROM last_words))
) freed
"""  # noqa: S608 - of names from the code alone
).bindparams(bindparam("caller_metadata", type_=JSONB(none_as_null=True)))


_WRITTEN = """
FROM settling s
CROSS JOIN LATERAL (
    SELECT attempt_id FROM batch_tries
    WHERE job_id = :job_id AND number = s.number AND shard = :shard
    LIMIT 1
) t
JOIN usage_records u ON u.attempt_id = t.attempt_id AND u.recorded_at = now()
"""
"""The records that this transaction has written: the instant it began is when they were."""

_CHARGES = text(f"""
SELECT u.usage_record_id, u.charge_nano_usd
{_WRITTEN}
WHERE u.charge_nano_usd > 0
ORDER BY u.usage_record_id
""")


_KEEP = text(f"""
INSERT INTO request_contents (customer_id, request_id, params, reply, goes_at)
SELECT u.customer_id, u.request_id, i.params, s.line, now() + make_interval(days => :days)
{_WRITTEN}
JOIN batch_items i ON i.job_id = :job_id AND i.number = s.number
WHERE i.params IS NOT NULL  -- none are left once the job is finished
""")
"""Both texts are moved as they are, sealed or not."""


# --- One transaction a chunk ----------------------------------------------------------------------
async def settle(tx: Transaction, shard: BatchShard, chunk: Chunk, billing: Billing) -> bool:
    """Settle a chunk of the shard's results; returns whether the wallet has news for its cycle.

    Repeating it does nothing, and the cursor moves only on from where it stands.
    """
    job, agreed = billing.job, billing.agreed
    days = await contents.days_held(tx, job.customer_id) if billing.keeps_content else None
    # Whoever records takes the account first, everywhere; of a prepaid customer, for itself.
    prepaying = agreed.terms.model == "prepaid"
    account = await accounts.lock(tx, job.customer_id) if prepaying else None
    share = accounts.share_lock(literal(job.customer_id))
    billed_at = (
        await tx.execute(select(accounts.billed_at(literal(billing.ended_at), share)))
    ).scalar_one()
    shard = await batch_shards.get(tx, shard.job_id, shard.shard, locked=True)
    await tx.execute(_TABLE)
    async with copying(tx, _COPY) as copy:
        await copy.write(chunk.rows)
    await batch_shards.by_index(tx)
    chunk_id = batches.chunk_id(job.job_id, shard.shard, shard.chunks + 1)
    parameters = _parameters(shard, billing, billed_at, chunk_id)
    done = (await tx.execute(_SETTLE, parameters)).one()
    news = False
    of_shard = {"job_id": shard.job_id, "shard": shard.shard}
    if days is not None:
        await tx.execute(_KEEP, {**of_shard, "days": days})
    if account is not None and done.records:
        charges = [(row[0], row[1]) for row in await tx.execute(_CHARGES, of_shard)]
        news = await prepaid.burn_batch(
            tx, account, charges, agreed.terms, billed_at, used_at=billing.ended_at
        )
    await _free(tx, job, to_nano_usd(times(agreed.terms.highest_factor, done.freed_usd)))
    await outbox.enqueue(
        tx,
        usage_record_id=None,
        key=RequestKey(customer_id=job.customer_id, request_id=chunk_id),
        occurred_at=billing.ended_at,
        billed_at=billed_at,
        values=meter_values(
            done.charge_nano_usd, {kind: getattr(done, kind) for kind in TOKEN_KINDS}
        ),
    )
    await batch_shards.change(tx, shard, **_counted(shard, chunk, done, agreed.terms))
    return news


def _parameters(
    shard: BatchShard, billing: Billing, billed_at: datetime, chunk_id: str
) -> dict[str, Any]:
    return {
        "chunk_id": chunk_id,
        "job_id": shard.job_id,
        "shard": shard.shard,
        "batch_id": shard.batch_id,
        "lost": shard.lost_at is not None,
        "customer_id": billing.job.customer_id,
        "caller_metadata": billing.job.caller_metadata,
        "ended_at": billing.ended_at,
        "billed_at": billed_at,
        "doubled": billing.doubled,
        "rounds": MAX_ROUNDS,
        "plan": billing.agreed.plan,
        "plan_from": billing.agreed.plan_from,
        "own_from": billing.agreed.own_from,
    }


async def _free(tx: Transaction, job: BatchJob, nano_usd: int) -> None:
    """Give back what was reserved for items that have had their last word."""
    left = func.greatest(col(Reservation.amount_nano_usd) - nano_usd, 0)
    await tx.execute(
        update(Reservation)
        .where(
            col(Reservation.customer_id) == job.customer_id,
            col(Reservation.request_id) == job.job_id,
        )
        .values(amount_nano_usd=left)
    )


def _counted(
    shard: BatchShard,
    chunk: Chunk,
    done: Row[*tuple[Any, ...]],
    terms: PlanTerms,
) -> dict[str, object]:
    """Return the shard's columns with what the chunk brought."""
    counted: dict[str, object] = {
        "tallied": dict(Counter(shard.tallied) + Counter[str](done.tallied)),
        "chunks": shard.chunks + (done.records > 0),
        "cost_usd": shard.cost_usd + done.cost_usd,
        "charge_nano_usd": shard.charge_nano_usd + done.charge_nano_usd,
        "saved_nano_usd": shard.saved_nano_usd + _saved(done, terms),
        **{each.value: getattr(shard, each) + getattr(done, each) for each in ItemOutcome},
    }
    if shard.bytes_read == chunk.from_byte:
        counted |= {
            "lines_read": shard.lines_read + chunk.lines,
            "bytes_read": chunk.to_byte,
        }
    return counted


def _saved(done: Row[*tuple[Any, ...]], terms: PlanTerms) -> int:
    """Return what the charges would have been more outside a batch; fees are never discounted."""
    book = price_book()
    fees = times(terms.factor(TokenKind.WEB_SEARCH), times(done.web_searches, book.web_search_usd))
    tokens = EXACT.subtract(from_nano_usd(done.charge_nano_usd), fees)
    return to_nano_usd(EXACT.subtract(EXACT.divide(tokens, book.batch_multiplier), tokens))


# --- The end of a file ----------------------------------------------------------------------------
_UNREAD = text(f"""
SELECT count(*)
FROM batch_tries t JOIN attempts a USING (attempt_id)
WHERE t.job_id = :job_id AND t.number BETWEEN :first_number AND :last_number AND t.shard = :shard
    AND {batch_shards.OPEN}
""")  # noqa: S608 - likewise


async def unread(tx: Transaction, shard: BatchShard) -> int:
    """Return how many items of the shard have had no line yet."""
    await batch_shards.by_index(tx)
    return (await tx.execute(_UNREAD, batch_shards.range_of(shard))).scalar_one()


async def read_again(tx: Transaction, shard: BatchShard) -> None:
    """Move the cursor to the begin of the file; what is settled stays settled."""
    await batch_shards.change(tx, shard, lines_read=0, bytes_read=0)
