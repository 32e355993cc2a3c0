"""`call_claude`: one provider call, journalled before and after, so that a crash leaves a trace.

Claude's API has no idempotency: a repeated POST is served, and billed, again. So the attempt row
is committed before the call; the outcome, the usage and the whole reply are committed to it before
this activity reports back; and a retry that finds a finished attempt returns its reply and does
not call. What remains is a worker that dies while Claude works: its attempt becomes
`indeterminate`, visible, counted and settled later against Anthropic's report.

A call that was begun is seen through, also for a request that was cancelled meanwhile. Once Claude
has answered, the answer is held until PostgreSQL has it, however long that takes. The commit runs
in a task of its own, so that neither a cancelled activity nor a worker that is told to stop lets go
of it.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from temporalio import activity

from activities.claude_api import ClaudeApi, ClaudeCallError
from activities.failures import failure
from activities.heartbeats import heartbeating
from tallystick.contracts import ClaudeRequest, RequestKey, ServedReply
from tallystick.errors import (
    ALREADY_BILLED,
    CLAUDE_NO_ANSWER,
    LEDGER_UNAVAILABLE,
    OUTCOME_UNKNOWN,
    REPLY_TOO_LARGE,
    REQUEST_ID_REUSED,
    Failure,
)
from tallystick.ledger import attempts
from tallystick.ledger.attempts import Barred, Completion, Finished, NewAttempt
from tallystick.ledger.database import Ledger, LedgerUnavailableError
from tallystick.ledger.tables import Outcome
from tallystick.payloads.columns import ColumnSeal
from tallystick.pricing import estimate_input_tokens, prompt_chars

MAX_REPLY_BYTES = 16_000_000
"""Of a reply as JSON, for the reason of `contracts.MAX_REQUEST_BYTES`; the longest text that Claude
writes is about a megabyte, and only what its tools bring makes a reply larger."""

_T = TypeVar("_T")

COMMIT_RETRY_FIRST, COMMIT_RETRY_LONGEST = 0.1, 5.0
"""Seconds between tries to commit an outcome while PostgreSQL is away."""


class ClaudeActivities:
    """Calls Claude through `api` and journals every call in `ledger`, replies under `seal`."""

    def __init__(
        self,
        ledger: Ledger,
        api: ClaudeApi,
        *,
        max_unknown_outcomes: int,
        seal: ColumnSeal | None = None,
    ):
        self._ledger = ledger
        self._api = api
        self._max_unknown = max_unknown_outcomes
        self._seal = seal or ColumnSeal()
        self._committing: set[asyncio.Task[None]] = set()

    @activity.defn
    async def call_claude(self, request: ClaudeRequest) -> ServedReply:
        """Return Claude's reply to this request, from an earlier attempt where there is one.

        Raises:
            ApplicationError: by the error table; the attempt row then has the same type.
        """
        async with heartbeating():
            begun = await self._begin(request)
            if isinstance(begun, Finished):
                if begun.reply is None:
                    raise failure(ALREADY_BILLED, "answered and billed before")
                return _served(begun.attempt_id, self._seal.read_document(begun.reply))
            return await self._call(request, begun.attempt_id)

    async def _begin(self, request: ClaudeRequest) -> attempts.Begun | Finished:
        new = NewAttempt(
            key=RequestKey(customer_id=request.customer_id, request_id=request.request_id),
            fingerprint=request.fingerprint,
            model=request.params["model"],
            conversation_id=request.conversation_id,
            estimated_input_tokens=estimate_input_tokens(request.params).likely,
            prompt_chars=prompt_chars(request.params),
        )
        try:
            at = datetime.now(UTC)
            async with self._ledger.each() as tx:
                first = await attempts.begin_first(tx, new, at)
            if first is not None:
                return first
            async with self._ledger.begin() as tx:
                begun = await attempts.begin(tx, new, at, max_unknown=self._max_unknown)
        except LedgerUnavailableError as error:
            raise failure(LEDGER_UNAVAILABLE, f"the ledger is away: {error}") from error
        if not isinstance(begun, Barred):
            return begun
        if begun.other_body:
            raise failure(
                REQUEST_ID_REUSED,
                f"request_id: {request.request_id!r} was used before with a different body; "
                "use a new id for a new request",
            )
        raise failure(
            OUTCOME_UNKNOWN,
            f"{begun.unknown_outcomes} calls for this request ended without a known outcome; "
            "each may have been served and billed, so no further one is made",
        )

    async def _call(self, request: ClaudeRequest, attempt_id: int) -> ServedReply:
        call = asyncio.create_task(self._api.create(request.params))
        try:
            answer = await _seen_through(call)
        except ClaudeCallError as error:
            await self._complete(attempt_id, _completion_of_error(error))
            raise failure(
                error.failure,
                str(error),
                retry_after=error.retry_after,
                claude_request_id=error.claude_request_id,
            ) from error
        except asyncio.CancelledError:
            # Claude may have served it all the same.
            call.cancel()
            await self._complete(
                attempt_id,
                _unanswered(CLAUDE_NO_ANSWER, "the worker stopped before Claude had answered"),
            )
            raise
        await self._complete(
            attempt_id,
            Completion(
                outcome=Outcome.SUCCEEDED,
                claude_request_id=answer.claude_request_id,
                message_id=answer.message.get("id"),
                usage=answer.message.get("usage"),
                reply=self._seal.document(answer.message),
            ),
        )
        return _served(attempt_id, answer.message)

    async def _complete(self, attempt_id: int, completion: Completion) -> None:
        """Commit the outcome, waiting for PostgreSQL as long as this process lives."""
        at = datetime.now(UTC)

        async def commit() -> None:
            async with self._ledger.each() as tx:
                await attempts.complete(tx, attempt_id, completion, at)

        task = asyncio.create_task(_until_committed(commit))
        self._committing.add(task)
        task.add_done_callback(self._committing.discard)
        await _seen_through(task)

    async def drain(self) -> None:
        """Wait until every answer that is held has been committed. For a worker's shutdown."""
        await asyncio.gather(*self._committing)


async def _seen_through(task: asyncio.Task[_T]) -> _T:
    """Return what the task returns, whatever becomes of the activity meanwhile.

    A request that is cancelled, or an activity that Temporal has given up, does not cut a call
    off: Claude bills what it generates all the same, and only the answer tells how much that is.
    Only a worker that must stop gives up waiting, when its grace is over.
    """
    while True:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            details = activity.cancellation_details()
            stopping = details is not None and details.worker_shutdown
            if task.cancelled() or (stopping and not task.done()):
                raise


async def _until_committed(commit: Callable[[], Awaitable[None]]) -> None:
    delay = COMMIT_RETRY_FIRST
    while True:
        try:
            return await commit()
        except LedgerUnavailableError:
            activity.logger.warning("the ledger is away; holding a reply until it is back")
            await asyncio.sleep(delay)
            delay = min(delay * 2, COMMIT_RETRY_LONGEST)


def _completion_of_error(error: ClaudeCallError) -> Completion:
    if error.failure.indeterminate:
        return _unanswered(
            error.failure, str(error), usage=error.usage, claude_request_id=error.claude_request_id
        )
    return Completion(
        outcome=Outcome.FAILED,
        claude_request_id=error.claude_request_id,
        error_type=error.failure.type,
        error_message=str(error),
    )


def _unanswered(
    row: Failure,
    message: str,
    *,
    usage: Mapping[str, Any] | None = None,
    claude_request_id: str | None = None,
) -> Completion:
    return Completion(
        outcome=Outcome.INDETERMINATE,
        claude_request_id=claude_request_id,
        usage=usage,
        error_type=row.type,
        error_message=message,
    )


def _served(attempt_id: int, message: dict[str, Any]) -> ServedReply:
    size = len(json.dumps(message, separators=(",", ":")).encode())
    if size > MAX_REPLY_BYTES:
        raise failure(
            REPLY_TOO_LARGE,
            f"Claude's reply is {size:,} bytes, over the {MAX_REPLY_BYTES:,} that can be carried; "
            "it is kept with its attempt",
            attempt_id=attempt_id,
        )
    return ServedReply(attempt_id=attempt_id, message=message)
