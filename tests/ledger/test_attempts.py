"""The attempt journal: what a second try finds, whatever became of the first."""

import asyncio
from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from tallystick.contracts import RequestKey
from tallystick.ledger import attempts
from tallystick.ledger.attempts import Barred, Begun, Completion, Finished, NewAttempt
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Attempt, Outcome

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SERVED = Completion(
    outcome=Outcome.SUCCEEDED, message_id="msg_1", usage={"input_tokens": 1}, reply={"id": "msg_1"}
)
LOST = Completion(outcome=Outcome.INDETERMINATE, error_type="ClaudeNoAnswer", error_message="gone")
REJECTED = Completion(outcome=Outcome.FAILED, error_type="ClaudeRejected", error_message="no")


def _new(request_id: str = "r-1", fingerprint: str = "f") -> NewAttempt:
    return NewAttempt(
        key=RequestKey(customer_id="acme", request_id=request_id),
        fingerprint=fingerprint,
        model="claude-haiku-5-5",
        conversation_id=None,
        estimated_input_tokens=10,
        prompt_chars=40,
    )


async def _begin(
    ledger: Ledger, new: NewAttempt | None = None, *, max_unknown: int = 5
) -> Begun | Finished | Barred:
    async with ledger.begin() as tx:
        return await attempts.begin(tx, new or _new(), NOW, max_unknown=max_unknown)


async def _begun(ledger: Ledger, new: NewAttempt | None = None) -> int:
    begun = await _begin(ledger, new)
    assert isinstance(begun, Begun)
    return begun.attempt_id


async def _complete(ledger: Ledger, attempt_id: int, completion: Completion) -> None:
    async with ledger.begin() as tx:
        await attempts.complete(tx, attempt_id, completion, NOW)


async def _get(ledger: Ledger, attempt_id: int) -> Attempt:
    async with ledger.begin() as tx:
        return await attempts.get(tx, attempt_id)


async def test_a_new_call_is_on_record_before_it_is_made(ledger: Ledger) -> None:
    row = await _get(ledger, await _begun(ledger))
    assert (row.outcome, row.number, row.finished_at) == (Outcome.STARTED, 1, None)


async def test_a_finished_attempt_gives_its_reply_instead_of_a_call(ledger: Ledger) -> None:
    first = await _begun(ledger)
    await _complete(ledger, first, SERVED)
    assert await _begin(ledger) == Finished(first, {"id": "msg_1"})


async def test_once_recorded_the_reply_is_gone_and_still_no_call_is_made(ledger: Ledger) -> None:
    first = await _begun(ledger)
    await _complete(ledger, first, SERVED)
    async with ledger.begin() as tx:
        # As the statement of the usage record does.
        await tx.execute(text("UPDATE attempts SET reply = NULL"))
    assert await _begin(ledger) == Finished(first, None)


async def test_a_worker_that_vanished_leaves_an_outcome_that_is_unknown(ledger: Ledger) -> None:
    first = await _begun(ledger)
    second = await _begun(ledger)
    row = await _get(ledger, first)
    assert (row.outcome, row.error_type) == (Outcome.INDETERMINATE, "WorkerLost")
    assert (await _get(ledger, second)).number == 2


async def test_a_worker_given_up_for_dead_may_still_say_how_its_call_ended(
    ledger: Ledger,
) -> None:
    first = await _begun(ledger)
    second = await _begun(ledger)
    await _complete(ledger, first, SERVED)
    assert (await _get(ledger, first)).outcome == Outcome.SUCCEEDED
    assert (await _get(ledger, second)).outcome == Outcome.STARTED


@pytest.mark.parametrize("known", [SERVED, REJECTED])
async def test_an_outcome_that_is_known_is_never_written_over(
    ledger: Ledger, known: Completion
) -> None:
    first = await _begun(ledger)
    await _complete(ledger, first, known)
    await _complete(ledger, first, LOST)
    row = await _get(ledger, first)
    assert (row.outcome, row.error_type) == (known.outcome, known.error_type)


async def test_another_body_is_barred_once_a_call_may_have_been_served(ledger: Ledger) -> None:
    first = await _begun(ledger)
    other = _new(fingerprint="other")
    assert await _begin(ledger, other) == Barred(other_body=True, unknown_outcomes=0)
    await _complete(ledger, first, LOST)
    assert await _begin(ledger, other) == Barred(other_body=True, unknown_outcomes=0)


async def test_another_body_may_follow_calls_that_were_rejected(ledger: Ledger) -> None:
    await _complete(ledger, await _begun(ledger), REJECTED)
    assert isinstance(await _begin(ledger, _new(fingerprint="other")), Begun)


async def test_calls_without_a_known_outcome_are_bounded_and_failed_ones_are_not(
    ledger: Ledger,
) -> None:
    for _ in range(3):
        await _complete(ledger, await _begun(ledger), REJECTED)
    for _ in range(2):
        await _complete(ledger, await _begun(ledger), LOST)
    assert await _begin(ledger, max_unknown=2) == Barred(other_body=False, unknown_outcomes=2)


async def test_two_workers_cannot_begin_the_same_attempt(ledger: Ledger) -> None:
    async with ledger.begin() as one:
        await attempts.begin(one, _new(), NOW, max_unknown=5)
        other = Ledger(ledger.url)
        try:
            with pytest.raises(IntegrityError):
                await _race(other, one)
        finally:
            await other.close()


async def _race(other: Ledger, one: object) -> None:
    async with other.begin() as two:
        beginning = asyncio.create_task(attempts.begin(two, _new(), NOW, max_unknown=5))
        await asyncio.sleep(0.2)  # it now waits for the first transaction's row
        await one.commit()  # type: ignore[attr-defined]
        await beginning


async def test_requests_of_two_customers_with_one_id_are_two_requests(ledger: Ledger) -> None:
    await _complete(ledger, await _begun(ledger), SERVED)
    other = NewAttempt(
        key=RequestKey(customer_id="zenith", request_id="r-1"),
        fingerprint="f",
        model="m",
        conversation_id=None,
        estimated_input_tokens=1,
        prompt_chars=1,
    )
    assert isinstance(await _begin(ledger, other), Begun)
