"""`BillingCycle`: a customer's account for life, one period per run.

The workflow knows nothing that the ledger does not. It reads the account's agenda, waits for its
first line or for news, has that line done by activities, and looks again; so a cycle that was
terminated is started again with nothing but the customer's id, and the answer to "what happens
next, and when?" is what it really waits for. Usage never signals it.

A step that has to wait says until when, one that a person must mend is tried again from time to
time and shown as stuck, and neither holds up the other lines: an unpaid invoice takes its course
while a draft waits for its last meter events. When the open period has moved on, the run drains
its handlers and continues as new, so history stays one period long.
"""

from contextlib import suppress
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy, SearchAttributeKey
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.workflow import ContinueAsNewVersioningBehavior

with workflow.unsafe.imports_passed_through():
    from tallystick.contracts import (
        BILLING_CYCLE,
        Agenda,
        CycleOrder,
        Due,
        News,
        StepOrder,
        StepResult,
    )
    from tallystick.errors import NOT_RETRYABLE
    from tallystick.plans.agenda import AccountState
    from tallystick.subjects import how_to_go_on

# --- read_agenda: a local activity, one read transaction -----------------------------------------
LOOK_TIMEOUT = timedelta(seconds=30)
LOOK_HOLD = timedelta(seconds=1)
"""A retry that is further off is a timer of the server's and holds no worker's slot."""
LOOK_RETRIES = RetryPolicy(
    initial_interval=timedelta(milliseconds=500),
    maximum_interval=timedelta(minutes=1),
    non_retryable_error_types=NOT_RETRYABLE,
)
"""Without end: while PostgreSQL is away there is nothing else to do."""

# --- every other step: ledger transactions and calls to Stripe -----------------------------------
STEP_TIMEOUT = timedelta(minutes=5)
"""Of one attempt. Settling reads a period of perhaps a million records; Stripe answers in seconds,
but an invoice may want some dozens of calls."""
STEP_HEARTBEAT = timedelta(seconds=15)
"""A killed worker is noticed after this, as for a call to Claude."""
STEP_PATIENCE = timedelta(minutes=15)
"""Of all attempts together. Then the step is put off, so that the lines after it get their turn."""
STEP_RETRIES = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2,
    maximum_interval=timedelta(minutes=1),
    non_retryable_error_types=NOT_RETRYABLE,
)
DONE_AND_STILL_THERE = timedelta(minutes=1)
"""A line that was done and has not left the agenda waits so long: a cycle never spins."""
PUT_OFF_FIRST, PUT_OFF_LONGEST = timedelta(minutes=10), timedelta(hours=1)
"""A step that failed is tried again by itself: the remedy is usually made elsewhere."""

_CUSTOMER_ID = SearchAttributeKey.for_keyword("CustomerId")
_BILLING_STATE = SearchAttributeKey.for_keyword("BillingState")
_Line = tuple[str, str]
"""A line of the agenda is known by kind and subject."""


@workflow.defn(name=BILLING_CYCLE)
class BillingCycleWorkflow:
    """Runs one customer's account; its id is `billing-cycle/{customer_id}`."""

    @workflow.init
    def __init__(self, order: CycleOrder) -> None:
        self._customer_id = order.customer_id
        self._agenda: Agenda | None = None
        self._news = False
        self._waits: dict[_Line, datetime] = {}
        """Lines that said when they want to be looked at again."""
        self._failures: dict[_Line, tuple[timedelta, str]] = {}
        """Lines whose step failed: how long they were last put off, and why."""
        self._done: dict[_Line, int] = {}
        """How many steps of a line are done, while the rest of it waits."""
        self._state = ""

    @workflow.run
    async def run(self, order: CycleOrder) -> None:
        """Run the account until it has ended, one period per run."""
        _upsert(_CUSTOMER_ID, order.customer_id)
        began = await self._look()
        agenda = began
        while not (agenda.state == AccountState.ENDED and not agenda.dues):
            due, at = self._next(agenda)
            if due is not None and at <= workflow.now():
                await self._do(due)
            else:
                await self._wait(at if due is not None else None)
            agenda = await self._look()
            moved_on = agenda.period_start != began.period_start
            info = workflow.info()
            new_build = info.is_target_worker_deployment_version_changed()
            if moved_on or new_build or info.is_continue_as_new_suggested():
                await workflow.wait_condition(workflow.all_handlers_finished)
                workflow.continue_as_new(order, initial_versioning_behavior=_upgrading())
        await workflow.wait_condition(workflow.all_handlers_finished)

    @workflow.signal
    def news(self, news: News) -> None:
        """Look at the ledger: something changed outside. What it was is in the ledger."""
        self._news = True

    @workflow.signal
    def retry_now(self) -> None:
        """Try what is put off again at once, after its cause was mended."""
        self._waits.clear()
        self._news = True

    @workflow.query
    def what_next(self) -> Agenda:
        """Tell what happens next to the account, and when."""
        if self._agenda is None:
            raise ApplicationError("the account is being looked at for the first time; ask again")
        return self._told(self._agenda)

    async def _look(self) -> Agenda:
        if self._news:
            # It may be what a waiting step waits for; one that failed has its own pace.
            self._news = False
            self._waits = {line: at for line, at in self._waits.items() if line in self._failures}
        agenda = await workflow.execute_local_activity(
            "read_agenda",
            StepOrder(customer_id=self._customer_id, now=workflow.now()),
            result_type=Agenda,
            start_to_close_timeout=LOOK_TIMEOUT,
            retry_policy=LOOK_RETRIES,
            local_retry_threshold=LOOK_HOLD,
        )
        self._agenda = agenda
        lines = {(due.kind, due.subject) for due in agenda.dues}
        for kept in (self._waits, self._failures, self._done):
            for line in [line for line in kept if line not in lines]:
                del kept[line]
        self._show(self._told(agenda))
        return agenda

    def _next(self, agenda: Agenda) -> tuple[Due | None, datetime]:
        """Return the line that is to be done first, and when."""
        soonest = min(agenda.dues, key=self._when, default=None)
        return soonest, self._when(soonest) if soonest is not None else workflow.now()

    def _when(self, due: Due) -> datetime:
        later = self._waits.get((due.kind, due.subject))
        return due.at if later is None else max(due.at, later)

    async def _wait(self, until: datetime | None) -> None:
        """Wait for news, and until then at the longest."""
        timeout = None if until is None else until - workflow.now()
        with suppress(TimeoutError):
            await workflow.wait_condition(lambda: self._news, timeout=timeout)

    async def _do(self, due: Due) -> None:
        """Have a line done, step by step, from where it had to wait the last time."""
        line = (due.kind, due.subject)
        self._waits.pop(line, None)
        for number in range(self._done.get(line, 0), len(due.steps)):
            try:
                result = await self._step(due.steps[number], due)
            except ActivityError as error:
                self._put_off(line, error)
                return
            self._failures.pop(line, None)
            if result.again_at is not None:
                # Never sooner than a moment from now: a step cannot make the cycle spin.
                self._waits[line] = max(result.again_at, workflow.now() + timedelta(seconds=1))
                return
            self._done[line] = number + 1
        self._done.pop(line, None)
        self._waits[line] = workflow.now() + DONE_AND_STILL_THERE

    async def _step(self, name: str, due: Due) -> StepResult:
        return await workflow.execute_activity(
            name,
            StepOrder(customer_id=self._customer_id, subject=due.subject, now=workflow.now()),
            result_type=StepResult,
            start_to_close_timeout=STEP_TIMEOUT,
            heartbeat_timeout=STEP_HEARTBEAT,
            schedule_to_close_timeout=STEP_PATIENCE,
            retry_policy=STEP_RETRIES,
            summary=due.words,
        )

    def _put_off(self, line: _Line, error: ActivityError) -> None:
        pause, _ = self._failures.get(line, (timedelta(0), ""))
        pause = min(max(pause * 2, PUT_OFF_FIRST), PUT_OFF_LONGEST)
        cause = error.cause if isinstance(error.cause, ApplicationError) else error
        self._failures[line] = (pause, cause.message)
        self._waits[line] = workflow.now() + pause

    def _told(self, agenda: Agenda) -> Agenda:
        """Return the agenda as this run sees it: with what is put off, and why."""
        dues = tuple(
            due.model_copy(
                update={
                    "at": self._when(due),
                    "words": f"{due.words} (failed: {self._failures[line][1]})"
                    if (line := (due.kind, due.subject)) in self._failures
                    else due.words,
                }
            )
            for due in sorted(agenda.dues, key=self._when)
        )
        stuck = bool(self._failures) and agenda.state == AccountState.ACTIVE
        return agenda.model_copy(
            update={"dues": dues, "state": AccountState.STUCK if stuck else agenda.state}
        )

    def _show(self, agenda: Agenda) -> None:
        """Show an operator where the account stands, in the list and on its page."""
        lines = [f"**{agenda.state}**"]
        if agenda.period_end is not None:
            lines.append(f"open period ends {agenda.period_end:%Y-%m-%d %H:%M %Z}")
        lines += [f"- {due.at:%Y-%m-%d %H:%M %Z}: {due.words}" for due in agenda.dues]
        if self._failures:
            lines += ["", how_to_go_on(workflow.info().workflow_id)]
        workflow.set_current_details("\n".join(lines))
        if agenda.state != self._state:
            self._state = agenda.state
            _upsert(_BILLING_STATE, agenda.state)


def _upgrading() -> ContinueAsNewVersioningBehavior:
    """Begin the next run on the current build, where workers are versioned (docs/versions.md)."""
    versioned = workflow.info().get_current_deployment_version() is not None
    behavior = ContinueAsNewVersioningBehavior
    return behavior.AUTO_UPGRADE if versioned else behavior.UNSPECIFIED


def _upsert(name: SearchAttributeKey[str], value: str) -> None:
    workflow.upsert_search_attributes([name.value_set(value)])  # pyright: ignore[reportUnknownMemberType]
