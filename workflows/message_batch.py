"""`MessageBatch`: a job of many requests, sent in batches, settled and billed, whatever dies.

The job is in the ledger: items, shards, tries, results. The workflow holds none of it. It lets the
job be admitted and then has two activities do whatever is left: **submit** what waits, **follow**
what runs. They wait by being retried, which adds nothing to a history, and return only when there
is something to tell; so a job of a million items that takes three days has a history of a hundred
events. **Metering** goes on beside them: Stripe may be away for days, and nothing waits for it but
the end.

What only a person can mend parks the step, visibly, and is tried again on `retry_now` or by itself
from time to time. Nothing but a refusal at admission fails the workflow: from then on the provider
may be serving, and what it serves is billed. So a cancelled workflow, too, goes on to its end.
"""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TypeVar, cast

from temporalio import workflow
from temporalio.common import Priority, RetryPolicy, SearchAttributeKey
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from tallystick.contracts import (
        CANCEL_UPDATE,
        MESSAGE_BATCH,
        PROGRESS_QUERY,
        STUCK_QUERY,
        BatchOrder,
        BatchProgress,
        BillingState,
        FollowOrder,
    )
    from tallystick.errors import INVALID_REQUEST, NOT_RETRYABLE
    from tallystick.subjects import how_to_go_on

_T = TypeVar("_T")

# --- every step is a remote activity: it may take long, and waits by being retried ---------------
STEP_TIMEOUT = timedelta(hours=2)
"""Of one attempt, which may have to send, or to read, all batches of a large job."""
STEP_HEARTBEAT = timedelta(seconds=15)
"""A killed worker is noticed after this. A false alarm costs nothing: two workers that do the same
step do it once."""
STEP_RETRIES = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2,
    maximum_interval=timedelta(seconds=10),
    non_retryable_error_types=NOT_RETRYABLE,
)
"""Without end: a batch takes up to 24 hours, and an outage may come on top. Delays that matter (the
time between two looks, a `retry-after`) are the activities' own. The backoff stays short, since it
grows with every look that found nothing, and whoever takes over from a killed worker waits for it:
were that a minute, workers that die every few seconds would hardly work at all."""
BULK = 4
"""Behind whoever waits for an answer (`INTERACTIVE` in workflows.claude_request)."""

# --- a parked step -------------------------------------------------------------------------------
PARK_FIRST, PARK_LONGEST = timedelta(minutes=10), timedelta(hours=12)
"""Between tries of a step that a person must mend. Growing to half a day, so that weeks fit into a
short history, and less than the day after which room that nobody uses is given back."""

_BILLING_STATE = SearchAttributeKey.for_keyword("BillingState")
_CUSTOMER_ID = SearchAttributeKey.for_keyword("CustomerId")


@workflow.defn(name=MESSAGE_BATCH)
class MessageBatchWorkflow:
    """Runs one job; its id is `message-batch/{job_id}`."""

    @workflow.init
    def __init__(self, order: Any) -> None:
        # As plain JSON and checked here, for the reason given at `ClaudeRequestWorkflow`.
        self._order: BatchOrder | None = None
        self._invalid = ""
        self._progress: BatchProgress | None = None
        self._to_meter = False
        self._ended = False
        self._stuck: dict[str, str] = {}
        """The steps that are parked, and why."""
        self._pushes = 0
        """How often somebody wanted parked steps to be tried at once."""
        try:
            self._order = BatchOrder.parse(order)
        except ValueError as error:
            self._invalid = str(error)

    @workflow.run
    async def run(self, order: Any) -> BatchProgress:
        """Run the job to its end, also when the workflow is cancelled; returns how it ended."""
        if self._order is None:
            raise self._refused(INVALID_REQUEST.type, self._invalid)
        job = asyncio.ensure_future(self._run(self._order))
        cancelling: asyncio.Task[BatchProgress] | None = None
        while True:
            try:
                ended = await asyncio.shield(job)
            except asyncio.CancelledError:
                if job.done():
                    raise
                cancelling = cancelling or asyncio.create_task(self._cancel(self._order))
            else:
                break
        if cancelling is not None:
            await cancelling
        await workflow.wait_condition(workflow.all_handlers_finished)
        return ended

    @workflow.update(name=CANCEL_UPDATE)
    async def cancel(self) -> BatchProgress:
        """Cancel the job: nothing more is sent, and what is served meanwhile is billed.

        Answers once the provider was asked; the workflow ends when all that ran has ended.
        """
        assert self._order is not None  # noqa: S101 - or the workflow has failed
        return await self._cancel(self._order)

    @workflow.signal
    def retry_now(self) -> None:
        """Try parked steps again at once, after their cause was mended."""
        self._pushes += 1

    @workflow.query(name=PROGRESS_QUERY)
    def progress(self) -> BatchProgress:
        """Tell how far the job was when the workflow last heard; the ledger knows it better."""
        if self._progress is None:
            raise ApplicationError("the job is being admitted; ask again")
        return self._progress

    @workflow.query(name=STUCK_QUERY)
    def stuck(self) -> dict[str, str]:
        """Tell the steps that wait for a person, each with why."""
        return self._stuck

    async def _run(self, order: BatchOrder) -> BatchProgress:
        try:
            progress = await self._activity("admit_batch", order, BatchProgress)
        except ActivityError as error:
            cause = _cause(error)
            details = cast("dict[str, Any]", cause.details[0] if cause.details else {})
            raise self._refused(cause.type or "", cause.message, details) from None
        _upsert(_CUSTOMER_ID, progress.customer_id)
        self._tell(progress)
        metering = asyncio.create_task(self._meter(order))
        while progress.waiting or progress.batches_settled < progress.batches:
            was_cancelled = progress.state == "canceling"
            if progress.waiting:
                await self._until_unparked("submit_batches", order, type(None))
            follow = FollowOrder(job_id=order.job_id, done=progress.done)
            progress = await self._step("follow_batches", follow)
            self._to_meter = True
            # What a cancelled job has not sent it never will: that much was known before the steps.
            if was_cancelled and progress.batches_settled == progress.batches:
                break
        progress = await self._step("finish_batch", order)
        self._ended = True
        await metering
        return progress

    async def _cancel(self, order: BatchOrder) -> BatchProgress:
        self._pushes += 1
        return await self._step("cancel_batch", order)

    async def _meter(self, order: BatchOrder) -> None:
        """Tell Stripe, whenever there is something new, until the job has ended."""
        while True:
            await workflow.wait_condition(lambda: self._to_meter or self._ended)
            if not self._to_meter:
                return
            self._to_meter = False
            await self._until_unparked("meter_batch", order, type(None))

    async def _step(self, name: str, order: BatchOrder | FollowOrder) -> BatchProgress:
        """Take a step that tells how far the job is."""
        progress = await self._until_unparked(name, order, BatchProgress)
        self._tell(progress)
        return progress

    async def _until_unparked(
        self, name: str, order: BatchOrder | FollowOrder, result: type[_T]
    ) -> _T:
        """Take a step; while it fails in a way that does not pass, wait visibly and repeat it."""
        pause = PARK_FIRST
        while True:
            pushes = self._pushes
            try:
                done = await self._activity(name, order, result)
            except ActivityError as error:
                self._show_stuck(name, _cause(error).message)
                try:
                    await workflow.wait_condition(
                        lambda seen=pushes: self._pushes != seen, timeout=pause
                    )
                except TimeoutError:
                    pause = min(pause * 2, PARK_LONGEST)
                continue
            self._show_stuck(name, None)
            return done

    async def _activity(self, name: str, order: BatchOrder | FollowOrder, result: type[_T]) -> _T:
        return await workflow.execute_activity(
            name,
            order,
            result_type=result,
            start_to_close_timeout=STEP_TIMEOUT,
            heartbeat_timeout=STEP_HEARTBEAT,
            retry_policy=STEP_RETRIES,
            priority=Priority(priority_key=BULK),
        )

    def _tell(self, progress: BatchProgress) -> None:
        """Keep what was heard last, and show it on the workflow's page."""
        self._progress = progress
        self._show()

    def _show_stuck(self, step: str, why: str | None) -> None:
        """Note that a step is parked, or no longer, and show it in the list too."""
        before = bool(self._stuck)
        self._stuck.pop(step, None)
        if why is not None:
            self._stuck[step] = why
        if before != bool(self._stuck):
            _upsert(_BILLING_STATE, BillingState.STUCK if self._stuck else BillingState.ACTIVE)
            self._show()

    def _show(self) -> None:
        lines = [f"**stuck** in {step}: {why}" for step, why in self._stuck.items()]
        if self._stuck:
            lines.append(how_to_go_on(workflow.info().workflow_id))
        if self._progress is not None:
            lines += _in_words(self._progress)
        workflow.set_current_details("\n\n".join(lines))

    def _refused(
        self, type_: str, message: str, details: Mapping[str, Any] | None = None
    ) -> ApplicationError:
        _upsert(_BILLING_STATE, BillingState.REFUSED)
        workflow.set_current_details(message)
        told = {**(details or {}), "refused_at": workflow.now().isoformat()}
        return ApplicationError(message, told, type=type_, non_retryable=True)


def _in_words(progress: BatchProgress) -> list[str]:
    """Return how far a job is, for a person."""
    failed = progress.errored + progress.expired + progress.canceled
    return [
        f"**{progress.state}**: {progress.done:,} of {progress.items:,} items are done, "
        f"{failed:,} of them without a reply; {progress.in_flight:,} are at the provider, "
        f"{progress.waiting:,} wait to be sent",
        f"charged so far: ${progress.charge_usd:f}; the batch price saved "
        f"${progress.batch_saves_usd:f}",
    ]


def _cause(error: ActivityError) -> ApplicationError:
    """Return the failure of a step as the activity raised it."""
    if isinstance(error.cause, ApplicationError):
        return error.cause
    return ApplicationError(f"a step failed: {error.cause or error.message}", type="StepFailed")


def _upsert(name: SearchAttributeKey[str], value: str) -> None:
    workflow.upsert_search_attributes([name.value_set(value)])  # pyright: ignore[reportUnknownMemberType]
