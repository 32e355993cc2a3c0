"""`Reconciliation`: three records laid side by side over closed hours, and what differs mended.

Two lanes go side by side, since neither has to wait for the other: Claude's reports against the
ledger, and the ledger against its meter events and those against what Stripe counts. Each step is
an activity that pages through its rows and leaves what it finds in the ledger; the workflow holds
none of it, so a million records make the same history as ten. A report that has not got so far yet
is waited for by the retries of one activity, which add nothing to a history either.

A step that fails stops its own lane, and only as far as what follows needs it; it is told in the
result and to the operators, and the next run does it again. Every step may be repeated whole, so
neither that, nor a run that was killed, leaves anything to be undone.
"""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy, SearchAttributeKey
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from tallystick.contracts import (
        PROGRESS_QUERY,
        RECONCILIATION,
        BillingState,
        CloseReconciliation,
        OpenedReconciliation,
        OpenReconciliation,
        Reconciled,
        ReconcileOrder,
        ReconcileProgress,
        ReconcileResult,
        ReconcileStep,
        RunKind,
    )
    from tallystick.errors import INVALID_REQUEST, NOT_RETRYABLE
    from tallystick.reconciling.words import when
    from tallystick.subjects import HOW_TO_DECIDE

# --- open and close: local activities, one ledger transaction each -------------------------------
LEDGER_TIMEOUT = timedelta(seconds=30)
LEDGER_HOLD = timedelta(seconds=1)
"""A retry that is further off is a timer of the server's and holds no worker's slot."""
LEDGER_RETRIES = RetryPolicy(
    initial_interval=timedelta(milliseconds=500),
    maximum_interval=timedelta(minutes=1),
    non_retryable_error_types=NOT_RETRYABLE,
)
"""Without end: while PostgreSQL is away there is nothing else to do."""

# --- every other step ----------------------------------------------------------------------------
STEP_TIMEOUT = timedelta(hours=1)
"""Of one attempt. The sums of a day for 2,000 customers on six meters are 12,000 calls to Stripe,
some eight minutes at its 25 a second."""
STEP_HEARTBEAT = timedelta(seconds=15)
"""A killed worker is noticed after this, as for a call to Claude. A false alarm costs nothing."""
STEP_RETRIES = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2,
    maximum_interval=timedelta(minutes=1),
    non_retryable_error_types=NOT_RETRYABLE,
)
"""Delays that matter (how soon a report may be asked for again) are the activities' own."""
STEP_PATIENCE: Mapping[RunKind, timedelta] = {
    "hourly": timedelta(minutes=25),
    "daily": timedelta(hours=3),
    "manual": timedelta(hours=1),
}
"""Of all attempts together. What an hourly run cannot do the next one does, which looks at the same
hours; a daily one sits out most outages; and who waits at a terminal will want to know."""
REPORTS_PATIENCE: Mapping[RunKind, timedelta] = {
    "hourly": timedelta(minutes=30),
    "daily": timedelta(hours=20),
    "manual": timedelta(minutes=20),
}
"""The same for Claude's reports to have got so far, which they usually have after five minutes.
A day's run gives up before the next day's, which makes up for it."""

DAY = timedelta(days=1)
STEPS: Mapping[str, str] = {
    "read_reports": "read Claude's usage and cost reports",
    "compare_claude": "compare Claude's usage report with the ledger",
    "compare_costs": "compare Claude's cost report with the price book",
    "compare_outbox": "compare the ledger with its meter events",
    "compare_stripe": "compare meter events with what Stripe counts",
    "apply_repairs": "repair what can be repaired without a person",
    "recheck_discrepancies": "look again at what is not settled",
}
"""The steps by the names of their activities, and what each does: what people are told of it."""

_BILLING_STATE = SearchAttributeKey.for_keyword("BillingState")
_SCHEDULED_AT = SearchAttributeKey.for_datetime("TemporalScheduledStartTime")


@workflow.defn(name=RECONCILIATION)
class ReconciliationWorkflow:
    """One run; two schedules start it, and `tallystick reconcile` does."""

    @workflow.init
    def __init__(self, order: Any) -> None:
        # As plain JSON and checked here, for the reason given at `ClaudeRequestWorkflow`.
        self._step: ReconcileStep | None = None
        self._done: dict[str, str] = {}
        self._failed: dict[str, str] = {}
        self._running: list[str] = []

    @workflow.run
    async def run(self, order: Any) -> ReconcileResult:
        """Compare, repair, look again; returns what it came to, with the steps that failed."""
        try:
            checked = ReconcileOrder.parse(order)
        except ValueError as error:
            raise _refused(str(error)) from None
        opened = await self._open(checked)
        self._step = opened.step
        self._show()
        differs, counting = await asyncio.gather(
            self._claude_lane(opened.step), self._stripe_lane()
        )
        if counting:
            await _let_stripe_count(opened.settles)
            await self._take("compare_stripe", again=True)
        repaired = await self._take("apply_repairs")
        if repaired is not None and (repaired.found or repaired.again):
            if differs:
                await self._take("compare_claude", again=True)
            await _let_stripe_count(opened.settles)
        await self._take("recheck_discrepancies")
        result = await self._close(opened.step)
        if result.over_tolerance:
            workflow.upsert_search_attributes(  # pyright: ignore[reportUnknownMemberType]
                [_BILLING_STATE.value_set(BillingState.DISCREPANCY)]
            )
        self._show(result)
        return result

    @workflow.query(name=PROGRESS_QUERY)
    def progress(self) -> ReconcileProgress:
        """Tell which steps are done, and what they came to."""
        return ReconcileProgress(
            step=self._step,
            done=self._done,
            failed=tuple(self._failed),
            running=tuple(self._running),
        )

    async def _claude_lane(self, step: ReconcileStep) -> bool:
        """Compare with Claude's reports; tell whether tokens differ.

        Money only where tokens could be compared: usage that differs explains what differs in cost.
        """
        if await self._take("read_reports") is None:
            return False
        compared = await self._take("compare_claude")
        if compared is not None and step.end - step.start >= DAY:
            await self._take("compare_costs")
        return compared is not None and compared.found > 0

    async def _stripe_lane(self) -> bool:
        """Compare on the way to Stripe; tell whether Stripe is still counting some of it."""
        await self._take("compare_outbox")
        compared = await self._take("compare_stripe")
        return compared is not None and compared.again

    async def _take(self, name: str, *, again: bool = False) -> Reconciled | None:
        """Take one step, maybe for the second time; None when it failed."""
        assert self._step is not None  # noqa: S101 - the run is open
        step = self._step.model_copy(update={"now": workflow.now()})
        patience = REPORTS_PATIENCE if name == "read_reports" else STEP_PATIENCE
        words = f"{STEPS[name]}{', again' if again else ''}"
        self._running.append(words)
        self._show()
        try:
            done = await workflow.execute_activity(
                name,
                step,
                result_type=Reconciled,
                start_to_close_timeout=STEP_TIMEOUT,
                heartbeat_timeout=STEP_HEARTBEAT,
                schedule_to_close_timeout=patience[step.kind],
                retry_policy=STEP_RETRIES,
                summary=words,
            )
        except ActivityError as error:
            self._failed[words] = self._done[words] = _words_of(error)
            return None
        finally:
            self._running.remove(words)
        self._done[words] = done.words
        return done

    async def _open(self, order: ReconcileOrder) -> OpenedReconciliation:
        info = workflow.info()
        try:
            return await workflow.execute_local_activity(
                "open_reconciliation",
                OpenReconciliation(
                    order=order,
                    run=info.run_id,
                    scheduled_at=_scheduled_at(info),
                    now=workflow.now(),
                ),
                result_type=OpenedReconciliation,
                start_to_close_timeout=LEDGER_TIMEOUT,
                retry_policy=LEDGER_RETRIES,
                local_retry_threshold=LEDGER_HOLD,
            )
        except ActivityError as error:
            raise _refused(_words_of(error)) from None

    async def _close(self, step: ReconcileStep) -> ReconcileResult:
        return await workflow.execute_local_activity(
            "close_reconciliation",
            CloseReconciliation(
                step=step.model_copy(update={"now": workflow.now()}), failed=self._failed
            ),
            result_type=ReconcileResult,
            start_to_close_timeout=LEDGER_TIMEOUT,
            retry_policy=LEDGER_RETRIES,
            local_retry_threshold=LEDGER_HOLD,
        )

    def _show(self, result: ReconcileResult | None = None) -> None:
        """Show on the run's page what it compares, how far it is, and what it came to."""
        lines: list[str] = []
        if self._step is not None:
            lines.append(f"**{when(self._step.start, self._step.end)}**")
        if result is not None:
            lines.append(result.words)
            if result.over_tolerance:
                lines += ["", HOW_TO_DECIDE, ""]
        lines += [
            f"- {'**failed:** ' if step in self._failed else ''}{step}: {words}"
            for step, words in self._done.items()
        ]
        lines += [f"- under way: {step}" for step in self._running]
        workflow.set_current_details("\n".join(lines))


async def _let_stripe_count(settles: timedelta) -> None:
    await workflow.sleep(settles, summary="Stripe counts what it was sent")


def _scheduled_at(info: workflow.Info) -> datetime | None:
    return info.typed_search_attributes.get(_SCHEDULED_AT)


def _words_of(error: ActivityError) -> str:
    """Return what an activity has said last, also where its time was over then."""
    said: BaseException | None = error.cause
    while said is not None and not isinstance(said, ApplicationError):
        said = said.__cause__
    return said.message if said is not None else str(error.cause or error.message)


def _refused(message: str) -> ApplicationError:
    workflow.set_current_details(message)
    return ApplicationError(message, type=INVALID_REQUEST.type, non_retryable=True)
