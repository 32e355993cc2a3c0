"""`ClaudeRequest`: one Claude reply for one customer, billed once, whatever dies on the way.

Four steps. **admit** and **record** are short ledger transactions and run as local activities; a
lost workflow task repeats them, which their unique keys make harmless. **call** runs on Claude's
own queue, where priority and fairness between customers are the server's. **meter** is an activity
of its own and not a local one: the update's answer leaves with the workflow task that records, and
a local step in that task would make the caller wait for Stripe.

The order is the promise. The reply is let go only after `record` has committed, so there is no
answer without a bill; metering comes after the reply, so Stripe can be down for days and no caller
notices. A step that only a person can mend parks here, visibly, and is tried again on `retry_now`
or by itself from time to time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any, TypeVar, cast

from temporalio import workflow
from temporalio.common import Priority, RetryPolicy, SearchAttributeKey
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception
from temporalio.workflow import ActivityCancellationType

with workflow.unsafe.imports_passed_through():
    from tallystick.contracts import (
        CLAUDE_REQUEST,
        CLAUDE_TASK_QUEUE,
        REPLY_UPDATE,
        Admission,
        BillingState,
        ClaudeReply,
        ClaudeRequest,
        MeterOrder,
        MeterReceipt,
        RecordedUsage,
        RecordOrder,
        ReplyCall,
        RequestKey,
        ServedReply,
    )
    from tallystick.errors import (
        CANCELLED,
        FAILURES,
        INVALID_REQUEST,
        NOT_RETRYABLE,
        REQUEST_ID_REUSED,
        Action,
    )
    from tallystick.subjects import HOW_TO_PRICE, how_to_go_on, meter_subject
    from workflows.counting import RequestOutcome, count_bill, count_outcome

_T = TypeVar("_T")

# --- admit_request, record_usage: local activities, one ledger transaction each ------------------
LEDGER_STEP_TIMEOUT = timedelta(seconds=30)
"""A transaction takes milliseconds; this covers waiting for a connection in a full pool."""
LEDGER_STEP_HOLD = timedelta(seconds=1)
"""A retry that is further off is a timer of the server's. Waiting in the open workflow task would
keep one of the worker's few slots, and requests that wait for room would shut out the very ones
they wait for."""
LEDGER_STEP_RETRIES = RetryPolicy(
    initial_interval=timedelta(milliseconds=200),
    backoff_coefficient=2,
    maximum_interval=timedelta(seconds=10),
    non_retryable_error_types=NOT_RETRYABLE,
)
"""Without end: while PostgreSQL is away nothing may be answered, and nothing may be forgotten."""

# --- call_claude: a remote activity on Claude's own queue ----------------------------------------
CALL_TIMEOUT = timedelta(hours=1)
"""Of one attempt. Longer than any call (`TALLYSTICK_CLAUDE_TIMEOUT`), since an answer that waits
for PostgreSQL is still held by the attempt."""
CALL_HEARTBEAT = timedelta(seconds=15)
"""A killed worker is noticed after this; a false alarm would cost a second provider call."""
CALL_PATIENCE = timedelta(hours=24)
"""Of all attempts together. A caller who still wants the answer then asks again."""
CALL_RETRIES = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2,
    maximum_interval=timedelta(minutes=1),
    non_retryable_error_types=NOT_RETRYABLE,
)
"""Overload and rate limits pass; a `retry-after` overrides these intervals."""
INTERACTIVE = 3
"""Temporal's middle priority: somebody waits for this answer. Bulk work comes after it."""

# --- send_meter_events: a remote activity on the main queue --------------------------------------
METER_TIMEOUT = timedelta(minutes=5)
"""Of one attempt: waiting for company, then one Stripe call in a row of calls."""
METER_HEARTBEAT = timedelta(seconds=15)
METER_RETRIES = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2,
    maximum_interval=timedelta(minutes=5),
    non_retryable_error_types=NOT_RETRYABLE,
)
"""Without end: an outage of days loses nothing, and the windows that Stripe sets are minded by the
activity, which parks what may no longer be sent."""

# --- a parked step -------------------------------------------------------------------------------
PARK_FIRST, PARK_LONGEST = timedelta(minutes=10), timedelta(hours=1)
"""A step that a person must mend is tried again by itself, rarely: the remedy (a key, a card, a
mapping) is usually made elsewhere, and nobody should have to visit every request afterwards."""

_BILLING_STATE = SearchAttributeKey.for_keyword("BillingState")
_CUSTOMER_ID = SearchAttributeKey.for_keyword("CustomerId")


@workflow.defn(name=CLAUDE_REQUEST)
class ClaudeRequestWorkflow:
    """Serves and bills one request; its id is `claude-request/{customer_id}/{request_id}`."""

    @workflow.init
    def __init__(self, request: Any) -> None:
        # Taken as plain JSON and checked here: a typed argument that does not decode would make
        # the server repeat the first workflow task for ever, and its caller wait for ever.
        self._request: ClaudeRequest | None = None
        self._failure: ApplicationError | None = None
        self._reply: ClaudeReply | None = None
        self._retry_now = False
        try:
            self._request = ClaudeRequest.parse(request)
        except ValueError as error:
            self._failure = _refusal(INVALID_REQUEST.type, str(error))

    @workflow.run
    async def run(self, request: Any) -> ClaudeReply:
        """Serve the request. Returns what the update `reply` returned before."""
        try:
            return await self._serve()
        except (ActivityError, ApplicationError) as error:
            self._failure = _final(error)
        except asyncio.CancelledError:
            self._failure = _refusal(CANCELLED.type, _cancelled("was called"))
        row = FAILURES.get(self._failure.type or "")
        refused = row is not None and row.action is Action.REFUSE
        count_outcome(
            RequestOutcome.REFUSED if refused else RequestOutcome.FAILED, self._failure.type or ""
        )
        self._tell(BillingState.REFUSED if refused else BillingState.FAILED, str(self._failure))
        await workflow.wait_condition(workflow.all_handlers_finished)
        raise self._failure

    @workflow.update(name=REPLY_UPDATE)
    async def reply(self, call: ReplyCall | None = None) -> ClaudeReply:
        """Wait for the answer and its bill; fails as the request fails."""
        await workflow.wait_condition(lambda: self._reply is not None or self._failure is not None)
        if self._reply is not None:
            return self._reply
        assert self._failure is not None  # noqa: S101 - the condition above
        raise self._failure

    @reply.validator
    def _same_body(self, call: ReplyCall | None = None) -> None:
        if call and call.fingerprint and self._request:
            if call.fingerprint == self._request.fingerprint:
                return
            raise _refusal(
                REQUEST_ID_REUSED.type,
                f"request_id: {self._request.request_id!r} is in use with a different body; "
                "use a new id for a new request",
            )

    @workflow.signal
    def retry_now(self) -> None:
        """Try a parked step again at once, after its cause was mended."""
        self._retry_now = True

    async def _serve(self) -> ClaudeReply:
        if self._request is None:
            assert self._failure is not None  # noqa: S101 - one of the two is set at init
            raise self._failure
        request = self._request
        self._make_findable(request)
        key = RequestKey(customer_id=request.customer_id, request_id=request.request_id)

        admission, served = await self._admit_and_call(request, key)
        # From here on a cancelled workflow finishes all the same: Claude has been paid.
        order = RecordOrder(
            key=key,
            attempt_id=served.attempt_id,
            metadata=request.metadata,
            warnings=admission.warnings,
            # No copy for the history, which has no arguments of local activities.
            params=request.params if admission.keeps_content else None,
        )
        recorded = await _to_the_end(self._ledger_step("record_usage", order, RecordedUsage))
        self._reply = ClaudeReply(
            request_id=request.request_id, message=served.message, bill=recorded.bill
        )
        count_outcome(RequestOutcome.ANSWERED)
        count_bill(recorded.bill)
        if recorded.bill.status == "unpriced":
            told = f"{recorded.bill.explanation}\n\n{HOW_TO_PRICE}"
            self._tell(BillingState.UNPRICED, told)
        if recorded.meter_events:
            await _to_the_end(
                self._until_unparked(
                    lambda: self._meter(MeterOrder(key=key, events=recorded.meter_events)),
                    "telling Stripe",
                    meter_subject(request.customer_id, request.request_id),
                )
            )
        return self._reply

    async def _admit_and_call(
        self, request: ClaudeRequest, key: RequestKey
    ) -> tuple[Admission, ServedReply]:
        """Take the two steps after which a request can still fail, and give back its room then."""
        admission: Admission | None = None
        try:
            admission = await self._ledger_step("admit_request", request, Admission)
            served = await self._until_unparked(
                lambda: self._call(request), "calling Claude", workflow.info().workflow_id
            )
        except (ActivityError, ApplicationError, asyncio.CancelledError) as error:
            if _left_something(error, admission):
                await _to_the_end(self._ledger_step("abandon_request", key, type(None)))
            raise
        return admission, served

    def _call(self, request: ClaudeRequest) -> Awaitable[ServedReply]:
        return workflow.execute_activity(
            "call_claude",
            request,
            result_type=ServedReply,
            task_queue=CLAUDE_TASK_QUEUE,
            start_to_close_timeout=CALL_TIMEOUT,
            schedule_to_close_timeout=CALL_PATIENCE,
            heartbeat_timeout=CALL_HEARTBEAT,
            retry_policy=CALL_RETRIES,
            # A call in flight is not cut off: what Claude generates is billed to us anyway.
            cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            priority=Priority(priority_key=INTERACTIVE, fairness_key=request.customer_id),
        )

    def _meter(self, order: MeterOrder) -> Awaitable[MeterReceipt]:
        return workflow.execute_activity(
            "send_meter_events",
            order,
            result_type=MeterReceipt,
            start_to_close_timeout=METER_TIMEOUT,
            heartbeat_timeout=METER_HEARTBEAT,
            retry_policy=METER_RETRIES,
        )

    async def _ledger_step(self, name: str, order: Any, result: type[_T]) -> _T:
        return await workflow.execute_local_activity(
            name,
            order,
            result_type=result,
            start_to_close_timeout=LEDGER_STEP_TIMEOUT,
            retry_policy=LEDGER_STEP_RETRIES,
            local_retry_threshold=LEDGER_STEP_HOLD,
            # So that what a cancelled step has committed is known before anything follows it.
            cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )

    async def _until_unparked(
        self, step: Callable[[], Awaitable[_T]], doing: str, subject: str
    ) -> _T:
        """Run a step; while it fails in a way only a person can mend, wait visibly and repeat.

        `subject` is what an operator calls it (`tallystick.subjects`).
        """
        pause, parked = PARK_FIRST, False
        while True:
            self._retry_now = False  # a signal during the step asks for one more try after it
            try:
                result = await step()
            except ActivityError as error:
                cause = _final(error)
                row = FAILURES.get(cause.type or "")
                if row is None or row.action is not Action.PARK:
                    raise
                if not parked:
                    count_outcome(RequestOutcome.PARKED, row.type)
                told = f"{doing}: {cause.message}\n\n{how_to_go_on(subject, skipping=True)}"
                self._tell(BillingState.STUCK, told, said=parked)
                parked = True
                try:
                    await workflow.wait_condition(lambda: self._retry_now, timeout=pause)
                except TimeoutError:
                    pause = min(pause * 2, PARK_LONGEST)
                continue
            if parked:
                self._tell(BillingState.ACTIVE, "")
            return result

    def _make_findable(self, request: ClaudeRequest) -> None:
        """Set what `tallystick.Client` sets at the start, for whoever started us without it."""
        if workflow.info().typed_search_attributes.get(_CUSTOMER_ID) is None:
            _upsert(_CUSTOMER_ID, request.customer_id)

    def _tell(self, state: str, details: str, *, said: bool = False) -> None:
        """Show an operator where the request stands, in the list and on its page."""
        workflow.set_current_details(details)
        if not said:
            _upsert(_BILLING_STATE, state)


def _upsert(name: SearchAttributeKey[str], value: str) -> None:
    workflow.upsert_search_attributes([name.value_set(value)])  # pyright: ignore[reportUnknownMemberType]


async def _to_the_end(step: Coroutine[Any, Any, _T]) -> _T:
    """Await a step that a cancelled workflow must still finish."""
    task = asyncio.ensure_future(step)
    while True:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.done():
                raise


def _left_something(error: BaseException, admission: Admission | None) -> bool:
    """Tell whether a request that fails may leave room reserved or a call begun.

    A step that told itself how it failed has left neither, but for what was reserved before it.
    """
    told = isinstance(error.cause if isinstance(error, ActivityError) else error, ApplicationError)
    return not told or (admission is not None and admission.reserved)


def _cancelled(before: str) -> str:
    """Say that the request was cancelled, and why where somebody has said so."""
    reason = workflow.cancellation_reason()
    return f"cancelled before Claude {before}{f': {reason}' if reason else ''}"


def _refusal(type_: str, message: str, details: dict[str, Any] | None = None) -> ApplicationError:
    # The server stores a refusal and gives it to later callers too; the instant tells them so.
    told = {**(details or {}), "refused_at": workflow.now().isoformat()}
    return ApplicationError(message, told, type=type_, non_retryable=True)


def _final(error: ActivityError | ApplicationError) -> ApplicationError:
    """Return the failure of a step as one that can end the workflow.

    A remote activity's comes wrapped, a local one's does not.
    """
    if is_cancelled_exception(error):
        return _refusal(CANCELLED.type, _cancelled("had answered"))
    cause = error.cause if isinstance(error, ActivityError) else error
    if isinstance(cause, ApplicationError):
        details = cast("dict[str, Any]", cause.details[0] if cause.details else {})
        return _refusal(cause.type or "", cause.message, details)
    return _refusal("StepFailed", f"a step failed: {cause or error.message}")
