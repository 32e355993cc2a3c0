"""Anthropic's reports beside the ledger: tokens by the hour, and money by the day.

`read_reports` copies the reports of the interval into the ledger, and of the hour on either side of
it, which tells what was served at its edges. `compare_claude` and `compare_costs` compare with that
copy, so each can be repeated at any time; only hours that differ are asked for again, by the
minute. What they find is entered an hour at a time, under keys that are the same on the next look.
"""

from collections.abc import Collection
from datetime import datetime, timedelta

from temporalio import activity

from activities.claude_api import ClaudeCallError
from activities.claude_reports import ClaudeReports
from activities.cost_comparison import compare_days, whole_days
from activities.failures import failure
from activities.heartbeats import heartbeating
from activities.transactions import transaction
from activities.usage_comparison import UsageComparison
from tallystick.contracts import Reconciled, ReconcileStep
from tallystick.errors import REPORT_UNSETTLED, Action
from tallystick.ledger import provider_records, reconciliations
from tallystick.ledger.database import Ledger
from tallystick.reconciling.intervals import HOUR, whole_hour
from tallystick.reconciling.reported import CostRow, UsageRow

AT_ONCE = timedelta(days=2)
"""Of the usage report in one question: a day and its edges, and rows that fit into memory."""
COSTS_AT_ONCE = timedelta(days=7)
LOOK_AGAIN_AT_LEAST = 1.0
"""Seconds until a report that is behind is asked again, where nothing has to settle otherwise."""

NO_ADMIN_KEY, UNAVAILABLE = "no_admin_key", "unavailable"


class ClaudeComparisonActivities:
    """Compares `ledger` with Anthropic's reports.

    Args:
        ledger: usage records and attempts, and where findings go.
        reports: reads the reports; None where there is no admin key.
        report_keys: ids of the API keys whose usage is ours; none for all.
        settles: how long Stripe is given to count; a report that is behind is asked again after it.
        claude_timeout: the longest one call to Claude may take: so long after it began, a call of
            unknown outcome may have been served.
    """

    def __init__(
        self,
        ledger: Ledger,
        reports: ClaudeReports | None,
        report_keys: Collection[str],
        settles: timedelta,
        claude_timeout: timedelta,
    ):
        self._ledger = ledger
        self._reports = reports
        self._report_keys = report_keys
        self._settles = settles
        self._claude_timeout = claude_timeout

    @activity.defn
    async def read_reports(self, step: ReconcileStep) -> Reconciled:
        """Copy the usage report of the interval into the ledger, and the cost report of its days.

        Without an admin key, or where the key is refused, it says so and the run goes on.

        Raises:
            ApplicationError: `ReportUnsettled` while a report has not got to the end of the
                interval, to be tried again; a row of the error table.
        """
        if self._reports is None:
            return await self._note(step, NO_ADMIN_KEY, "not read: ANTHROPIC_ADMIN_KEY is not set")
        async with heartbeating():
            try:
                usage_calls, refreshed_at = await self._read_usage(self._reports, step)
                cost_calls = await self._read_costs(self._reports, step)
            except ClaudeCallError as error:
                if error.failure.action is Action.RETRY:
                    raise failure(
                        error.failure, str(error), retry_after=error.retry_after
                    ) from error
                return await self._note(step, UNAVAILABLE, f"not read: {error}")
        calls = usage_calls + cost_calls
        async with transaction(self._ledger) as tx:
            await reconciliations.note_claude(tx, step.reconciliation_id, None, refreshed_at)
            await reconciliations.count_calls(tx, step.reconciliation_id, "read_reports", calls)
        return Reconciled(words=f"read until {refreshed_at:%Y-%m-%d %H:%M} UTC", calls=calls)

    @activity.defn
    async def compare_claude(self, step: ReconcileStep) -> Reconciled:
        """Compare tokens by the hour, enter what differs, and settle calls that were not served.

        Raises:
            ApplicationError: a row of the error table.
        """
        async with heartbeating():
            comparison = UsageComparison(
                self._ledger,
                self._reports,
                self._report_keys,
                settles=self._settles,
                longest=self._claude_timeout,
                step=step,
            )
            try:
                return await comparison.run()
            except ClaudeCallError as error:
                raise failure(error.failure, str(error), retry_after=error.retry_after) from error

    @activity.defn
    async def compare_costs(self, step: ReconcileStep) -> Reconciled:
        """Compare money by the whole UTC day.

        Raises:
            ApplicationError: a row of the error table.
        """
        async with heartbeating():
            return await compare_days(self._ledger, step, settles=self._settles)

    # --- Reading ----------------------------------------------------------------------------------
    async def _read_usage(
        self, reports: ClaudeReports, step: ReconcileStep
    ) -> tuple[int, datetime]:
        """Copy the usage report; returns how many calls that took, and how far the report is."""
        calls, complete_until = 0, step.now
        start, end = step.start - HOUR, min(step.end + HOUR, whole_hour(step.now))
        while start < end:
            rows: list[UsageRow] = []
            until = min(start + AT_ONCE, end)
            async for page in reports.usage(start, until, "1h", self._report_keys):
                calls += 1
                complete_until = min(complete_until, self._settled(page.refreshed_at, step.end))
                rows += page.rows
            told_until = min(until, max(whole_hour(complete_until), step.end))
            async with transaction(self._ledger) as tx:
                await provider_records.store_usage(
                    tx,
                    [row for row in rows if row.at < told_until],
                    start=start,
                    end=told_until,
                    refreshed_at=complete_until,
                )
            start = until
        return calls, complete_until

    async def _read_costs(self, reports: ClaudeReports, step: ReconcileStep) -> int:
        """Copy the cost report of the interval's whole days; returns how many calls that took."""
        calls = 0
        start, end = whole_days(step.start, step.end)
        while start < end:
            rows: list[CostRow] = []
            until = min(start + COSTS_AT_ONCE, end)
            refreshed_at = step.now
            async for page in reports.costs(start, until, self._report_keys):
                calls += 1
                refreshed_at = min(refreshed_at, self._settled(page.refreshed_at, end))
                rows += page.rows
            async with transaction(self._ledger) as tx:
                await provider_records.store_costs(
                    tx, rows, first=start.date(), end=until.date(), refreshed_at=refreshed_at
                )
            start = until
        return calls

    def _settled(self, refreshed_at: datetime | None, end: datetime) -> datetime:
        """Return how far the report is, once that is far enough."""
        if refreshed_at is not None and refreshed_at >= end:
            return refreshed_at
        known = "nowhere yet" if refreshed_at is None else f"until {refreshed_at:%m-%d %H:%M} UTC"
        raise failure(
            REPORT_UNSETTLED,
            f"the report is known {known}, and wanted until {end:%m-%d %H:%M} UTC",
            retry_after=max(self._settles.total_seconds(), LOOK_AGAIN_AT_LEAST),
        )

    async def _note(self, step: ReconcileStep, state: str, words: str) -> Reconciled:
        async with transaction(self._ledger) as tx:
            await reconciliations.note_claude(tx, step.reconciliation_id, state, None)
        return Reconciled(words=words)
