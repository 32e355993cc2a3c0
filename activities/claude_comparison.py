"""Anthropic's reports beside the ledger: read them, compare tokens by the hour and money by the day.

`read_reports` copies the reports of the interval, and the hour around it, into the ledger;
`compare_claude` and `compare_costs` compare with that copy, so each can be repeated at any time.
"""

from collections.abc import Collection
from datetime import timedelta

from temporalio import activity

from activities.claude_reports import ClaudeReports
from tallystick.contracts import Reconciled, ReconcileStep
from tallystick.ledger.database import Ledger


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
        raise NotImplementedError

    @activity.defn
    async def compare_claude(self, step: ReconcileStep) -> Reconciled:
        """Compare tokens by the hour, enter what differs, and settle calls that were not served."""
        raise NotImplementedError

    @activity.defn
    async def compare_costs(self, step: ReconcileStep) -> Reconciled:
        """Compare money by the whole UTC day."""
        raise NotImplementedError
