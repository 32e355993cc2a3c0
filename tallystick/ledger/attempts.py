"""The journal of provider calls: one row per call, committed before it, completed after it.

The row makes a crash legible. If the worker died before the call was answered, the next attempt
finds the row still `started` and marks it `indeterminate`; if it died after the answer was
committed, the next attempt finds the reply and does not call again. Every call therefore leaves a
trace, and no answer that was paid for and stored is paid for twice.

An outcome is written once. The one exception is a worker that was given up for dead and was not:
its answer may still replace `indeterminate`, because knowing is better than not knowing.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, bindparam, case, exists, func, select, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlmodel import col

from tallystick.contracts import RequestKey
from tallystick.ledger.database import Transaction, entity
from tallystick.ledger.reconciliation_tables import AttemptSettlement
from tallystick.ledger.tables import Attempt, Outcome, UsageRecord


@dataclass(frozen=True, slots=True)
class NewAttempt:
    """What is known of a call before it is made. Holds no text of the prompt."""

    key: RequestKey
    fingerprint: str
    model: str
    conversation_id: str | None
    estimated_input_tokens: int
    prompt_chars: int


@dataclass(frozen=True, slots=True)
class Begun:
    """A row was committed for the call that is about to be made."""

    attempt_id: int


@dataclass(frozen=True, slots=True)
class Finished:
    """An earlier attempt has the reply; `reply` is None once the usage record took its place."""

    attempt_id: int
    reply: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Barred:
    """No call may be made: the body differs from an earlier one, or too many outcomes are open."""

    other_body: bool
    unknown_outcomes: int


@dataclass(frozen=True, slots=True)
class Completion:
    """How a call ended: the outcome and all that the provider told about it."""

    outcome: Outcome
    claude_request_id: str | None = None
    message_id: str | None = None
    usage: Mapping[str, Any] | None = None
    reply: Mapping[str, Any] | None = None
    error_type: str | None = None
    error_message: str | None = None


# Built once: putting a statement together costs more than running it.
_OF_REQUEST = (
    col(Attempt.customer_id) == bindparam("of_customer"),
    col(Attempt.request_id) == bindparam("of_request"),
)
_EARLIER = (
    select(
        col(Attempt.attempt_id),
        col(Attempt.number),
        col(Attempt.outcome),
        col(Attempt.fingerprint),
        col(Attempt.reply),
    )
    .where(*_OF_REQUEST)
    .order_by(col(Attempt.number))
)
_MARK_LOST = (
    update(Attempt)
    .where(*_OF_REQUEST, col(Attempt.outcome) == Outcome.STARTED)
    .values(
        outcome=Outcome.INDETERMINATE,
        error_type="WorkerLost",
        error_message="the worker vanished before it could record how the call ended",
    )
)
_BEGIN = insert(Attempt).returning(col(Attempt.attempt_id))
_BEGIN_FIRST = insert(Attempt).on_conflict_do_nothing().returning(col(Attempt.attempt_id))
_RECORDED = (
    select(col(UsageRecord.usage_record_id))
    .where(
        col(UsageRecord.customer_id) == col(Attempt.customer_id),
        col(UsageRecord.request_id) == col(Attempt.request_id),
    )
    .exists()
)
_COMPLETE = (
    update(Attempt)
    .where(
        col(Attempt.attempt_id) == bindparam("of_attempt"),
        col(Attempt.outcome).in_([Outcome.STARTED, Outcome.INDETERMINATE]),
    )
    .values(reply=case((~_RECORDED, bindparam("of_reply", type_=JSONB(none_as_null=True)))))
)
_GET = select(Attempt).where(col(Attempt.attempt_id) == bindparam("of_attempt"))
COUNT = select(func.count()).select_from(Attempt).where(*_OF_REQUEST)
"""How many provider calls the request has made so far; takes the parameters of `of_request`."""


async def begin_first(tx: Transaction, new: NewAttempt, at: datetime) -> Begun | None:
    """Write the row of the request's first attempt; None where the request has been tried before.

    What `begin` does, in one statement, for all requests that go well: if number one is free,
    there is nothing to look at.
    """
    begun = (await tx.execute(_BEGIN_FIRST, _columns(new, 1, at))).one_or_none()
    return Begun(int(begun.attempt_id)) if begun else None


async def begin(
    tx: Transaction, new: NewAttempt, at: datetime, *, max_unknown: int
) -> Begun | Finished | Barred:
    """Commit-before-call: reuse a finished attempt, or write the row of a new one.

    Two workers that race for the same request collide on the attempt number and one of them gets
    an integrity error, before either has called.
    """
    rows = (await tx.execute(_EARLIER, of_request(new.key))).all()
    served = [row for row in rows if row.outcome != Outcome.FAILED]
    if any(row.fingerprint != new.fingerprint for row in served):
        return Barred(other_body=True, unknown_outcomes=0)
    for row in served:
        if row.outcome == Outcome.SUCCEEDED:
            return Finished(row.attempt_id, row.reply)
    if len(served) >= max_unknown:
        return Barred(other_body=False, unknown_outcomes=len(served))
    if any(row.outcome == Outcome.STARTED for row in rows):
        await mark_lost(tx, new.key)
    number = rows[-1].number + 1 if rows else 1
    begun = (await tx.execute(_BEGIN, _columns(new, number, at))).one()
    return Begun(int(begun.attempt_id))


def _columns(new: NewAttempt, number: int, at: datetime) -> dict[str, Any]:
    return {
        "customer_id": new.key.customer_id,
        "request_id": new.key.request_id,
        "number": number,
        "fingerprint": new.fingerprint,
        "model": new.model,
        "conversation_id": new.conversation_id,
        "estimated_input_tokens": new.estimated_input_tokens,
        "prompt_chars": new.prompt_chars,
        "outcome": Outcome.STARTED,
        "started_at": at,
    }


async def mark_lost(tx: Transaction, key: RequestKey) -> None:
    """Mark calls that are still `started` as of unknown outcome: nobody waits for them any more."""
    await tx.execute(_MARK_LOST, of_request(key))


async def complete(tx: Transaction, attempt_id: int, completion: Completion, at: datetime) -> None:
    """Commit how the call ended. `at` is when Claude finished serving, by this worker's clock.

    Repeating it is harmless: an outcome that is known is left as it is. The reply is not kept where
    the request has its record already, since nobody would ever take it away again.
    """
    await tx.execute(
        _COMPLETE,
        {
            "of_attempt": attempt_id,
            "outcome": completion.outcome,
            "finished_at": at,
            "claude_request_id": completion.claude_request_id,
            "message_id": completion.message_id,
            "usage": completion.usage,
            "of_reply": completion.reply,
            "error_type": completion.error_type,
            "error_message": completion.error_message,
        },
    )


async def get(tx: Transaction, attempt_id: int) -> Attempt:
    """Return one attempt; raises NoResultFound for an id that was never begun."""
    return entity(Attempt, (await tx.execute(_GET, {"of_attempt": attempt_id})).one())


async def count_failed(
    tx: Transaction,
    customer_id: str | None = None,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
) -> Sequence[Row[str, int]]:
    """Return each customer with calls that Claude answered with an error, and how many.

    Of all times, or of calls begun in [start, end).
    """
    statement = (
        select(col(Attempt.customer_id), func.count())
        .where(*begun(customer_id, start, end), col(Attempt.outcome) == Outcome.FAILED)
        .group_by(col(Attempt.customer_id))
    )
    return (await tx.execute(statement)).all()


async def indeterminate(
    tx: Transaction,
    customer_id: str | None = None,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
) -> AsyncGenerator[Attempt, None]:
    """Yield the calls, of all times or begun in [start, end), whose outcome nobody knows.

    What reconciliation has settled is known.
    """
    settled = exists().where(col(AttemptSettlement.attempt_id) == col(Attempt.attempt_id))
    statement = select(Attempt).where(
        *begun(customer_id, start, end), col(Attempt.outcome) == Outcome.INDETERMINATE, ~settled
    )
    async for row in await tx.stream(statement):
        yield entity(Attempt, row)


def begun(
    customer_id: str | None, start: datetime | None, end: datetime | None
) -> list[ColumnElement[bool]]:
    """Return the conditions on calls of one customer, or begun in [start, end); None is all."""
    conditions: list[ColumnElement[bool]] = []
    if customer_id is not None:
        conditions.append(col(Attempt.customer_id) == customer_id)
    if start is not None:
        conditions.append(col(Attempt.started_at) >= start)
    if end is not None:
        conditions.append(col(Attempt.started_at) < end)
    return conditions


def of_request(key: RequestKey) -> dict[str, str]:
    """Return the parameters of the statements here that concern one request."""
    return {"of_customer": key.customer_id, "of_request": key.request_id}
