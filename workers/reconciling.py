"""What a worker registers for reconciliation, on clients that close with it."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

from activities.claude_comparison import ClaudeComparisonActivities
from activities.claude_reports import ClaudeReports
from activities.reconciliations import ReconciliationActivities
from activities.repairs import Repairs
from activities.stripe_clients import stripe_client
from activities.stripe_comparison import StripeComparisonActivities
from activities.stripe_meters import MeterTransport
from activities.stripe_summaries import MeterSummaries
from tallystick.ledger.database import Ledger
from tallystick.services import Endpoints
from tallystick.settings import Settings

REPORT_TIMEOUT = 60.0
"""Seconds for one page of a report, which may have a thousand rows."""


@asynccontextmanager
async def reconciling(
    ledger: Ledger, where: Endpoints, settings: Settings, transport: MeterTransport
) -> AsyncGenerator[list[Callable[..., Any]], None]:
    """Yield the activities of reconciliations."""
    settles = timedelta(seconds=settings.summaries_settle)
    async with AsyncExitStack() as stack:
        stripe = await stack.enter_async_context(stripe_client(where, settings, ledger.url))
        reports = None
        if where.anthropic_admin_key is not None:
            key = where.anthropic_admin_key.get_secret_value()
            reports = ClaudeReports(key, where.anthropic_base_url, timeout=REPORT_TIMEOUT)
            stack.push_async_callback(reports.close)
        runs = ReconciliationActivities(ledger, settings.tolerance_tokens, settles)
        claude = ClaudeComparisonActivities(
            ledger,
            reports,
            settings.report_keys,
            settles,
            timedelta(seconds=settings.claude_timeout),
        )
        compared = StripeComparisonActivities(ledger, MeterSummaries(stripe), settles)
        yield [
            runs.open_reconciliation,
            runs.close_reconciliation,
            claude.read_reports,
            claude.compare_claude,
            claude.compare_costs,
            compared.compare_outbox,
            compared.compare_stripe,
            compared.recheck_discrepancies,
            Repairs(ledger, stripe, transport).apply_repairs,
        ]
