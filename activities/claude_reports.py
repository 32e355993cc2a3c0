"""The one place that reads Anthropic's usage and cost reports: pages of rows, or a named failure.

The official SDK carries the calls, its own retries off. A report is a list of pages, and each page
says how far the report has got (`data_refreshed_at`). A page that says that there is more and not
where is a failure: rows that never came would look like usage that never was.

Names stay as the report has them, '' where it leaves one null; amounts arrive as decimal strings of
fractional cents and leave as dollars. Source: facts on Claude, 'Usage and cost reports'.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Generic, Literal, TypeVar

from anthropic import omit
from anthropic.pagination import AsyncReportPageCursor
from anthropic.types.beta.organization.analytics import (
    BetaAnalyticsCostItem,
    BetaAnalyticsUsageItem,
)

from activities.claude_api import ClaudeCallError, named_failures
from activities.claude_clients import claude_client
from tallystick.errors import CLAUDE_FORBIDDEN, REPORT_CUT, REPORT_FORBIDDEN, REPORT_UNREADABLE
from tallystick.money import EXACT, usd
from tallystick.pricing import TokenCounts, TokenKind
from tallystick.reconciling.reported import CostRow, UsageRow

ROWS = 1_000
"""Of a page at the most; 20 where nothing is said."""
CENTS = Decimal(100)
_TOKEN_TYPES = {
    "uncached_input_tokens": TokenKind.INPUT,
    "output_tokens": TokenKind.OUTPUT,
    "cache_creation.ephemeral_5m_input_tokens": TokenKind.CACHE_WRITE_5M,
    "cache_creation.ephemeral_1h_input_tokens": TokenKind.CACHE_WRITE_1H,
    "cache_read_input_tokens": TokenKind.CACHE_READ,
}

_Row = TypeVar("_Row")
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Page(Generic[_Row]):
    """What one call has brought: rows, and until when the report is complete, if it says so."""

    rows: list[_Row]
    refreshed_at: datetime | None


class ClaudeReports:
    """The reports behind one admin key at one address."""

    def __init__(self, admin_key: str, base_url: str | None, *, timeout: float):
        """Prepare the client; `timeout` is in seconds for one page."""
        self._client = claude_client(admin_key, base_url, timeout=timeout)

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.close()

    def usage(
        self, start: datetime, end: datetime, width: Literal["1h", "1m"], keys: Collection[str]
    ) -> AsyncGenerator[Page[UsageRow], None]:
        """Yield the usage report of [start, end), a page for each call.

        Args:
            start: where it begins.
            end: where it ends; at most 31 days later, with buckets of a minute 24 hours.
            width: how long a bucket is.
            keys: ids of the API keys to be told of; none for all.

        Raises:
            ClaudeCallError: `ReportForbidden` where the key may not read reports, and for every
                other trouble.
        """
        return _pages(
            lambda: self._client.beta.organization.analytics.usage.list(
                starting_at=start,
                ending_at=end,
                time_bucket_width=width,
                group_by=["model", "api_key_id", "service_tier", "inference_geo", "speed"],
                api_key_ids=sorted(keys) or omit,
                order_by="time",
                order="asc",
                limit=ROWS,
            ),
            _usage_row,
        )

    def costs(
        self, start: datetime, end: datetime, keys: Collection[str]
    ) -> AsyncGenerator[Page[CostRow], None]:
        """Yield the cost report of the whole UTC days in [start, end), a page for each call.

        Raises:
            ClaudeCallError: as for usage.
        """
        return _pages(
            lambda: self._client.beta.organization.analytics.cost.list(
                starting_at=start,
                ending_at=end,
                time_bucket_width="1d",
                group_by=["model", "api_key_id", "cost_type", "token_type"],
                api_key_ids=sorted(keys) or omit,
                order_by="time",
                order="asc",
                limit=ROWS,
            ),
            _cost_row,
        )


async def _pages(
    ask: Callable[[], Awaitable[AsyncReportPageCursor[_Item]]], read: Callable[[_Item], _Row]
) -> AsyncGenerator[Page[_Row], None]:
    with _named():
        page = await ask()
    while True:
        with _named():
            told = Page([read(item) for item in page.data], page.data_refreshed_at)
        yield told
        if page.has_more and not page.next_page:
            raise ClaudeCallError(REPORT_CUT, "a page of the report does not say what follows it")
        if not page.has_next_page():
            return
        with _named():
            page = await page.get_next_page()


@contextmanager
def _named() -> Generator[None, None, None]:
    try:
        with named_failures():
            yield
    except ClaudeCallError as error:
        if error.failure is not CLAUDE_FORBIDDEN:
            raise
        raise ClaudeCallError(
            REPORT_FORBIDDEN,
            f"ANTHROPIC_ADMIN_KEY: {error}; reports want an Admin key, or one with the scope "
            "read:analytics",
        ) from error
    except (AttributeError, TypeError) as error:
        # The SDK takes every answer for what it should be; a field that is not there shows here.
        raise ClaudeCallError(
            REPORT_UNREADABLE, f"a row of the report cannot be read: {error}"
        ) from error


def _usage_row(item: BetaAnalyticsUsageItem) -> UsageRow:
    group, used = item.group, item.usage
    return UsageRow(
        at=item.starting_at,
        model=group.model or "",
        api_key_id=group.api_key_id or "",
        service_tier=group.service_tier or "",
        inference_geo=group.inference_geo or "",
        speed=group.speed or "",
        counts=TokenCounts(
            input=used.uncached_input_tokens,
            output=used.output_tokens,
            cache_write_5m=used.cache_creation.ephemeral_5m_input_tokens,
            cache_write_1h=used.cache_creation.ephemeral_1h_input_tokens,
            cache_read=used.cache_read_input_tokens,
            web_search=used.server_tool_use.web_search_requests,
        ),
        requests=used.requests,
    )


def _cost_row(item: BetaAnalyticsCostItem) -> CostRow:
    group, cost = item.group, item.cost
    if cost.currency != "USD":
        raise ClaudeCallError(
            REPORT_UNREADABLE, f"the cost report is in {cost.currency}, not in USD"
        )
    component: Any = group.cost_type or "unnamed"
    if group.token_type is not None:
        component = _TOKEN_TYPES.get(group.token_type, group.token_type)
    return CostRow(
        day=item.starting_at.date(),
        model=group.model or "",
        api_key_id=group.api_key_id or "",
        component=str(component),
        list_usd=EXACT.divide(usd(cost.list_amount), CENTS),
        amount_usd=EXACT.divide(usd(cost.amount), CENTS),
    )
