"""What the tests of the reports share: a stand-in at noon, read with an admin key an hour later."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import anthropic

from tests.sandbox.claude_stand_in import StandIn, stand_in

NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)
HOUR, DAY = 3_600, 24 * 3_600
EVERYTHING = ["model", "api_key_id", "service_tier", "inference_geo", "speed"]
LASTING = [
    {"type": "text", "text": "s" * 8_000, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
]
"""A system prompt of 2,000 tokens that is written to the cache for an hour."""


def at(seconds: float) -> datetime:
    """An instant, so many seconds from noon."""
    return datetime.fromtimestamp(NOON.timestamp() + seconds, UTC)


class Reported:
    """A stand-in whose reports are read from midnight to midnight unless said otherwise."""

    def __init__(self, claude: StandIn, analytics: Any):
        self.claude, self.analytics = claude, analytics

    async def usage(self, **asked: Any) -> list[Any]:
        return await self._all(self.analytics.usage, asked)

    async def cost(self, **asked: Any) -> list[Any]:
        return await self._all(self.analytics.cost, asked)

    async def until(self, seconds: float) -> None:
        """Set the clock to so many seconds from noon."""
        await self.claude.post("clock", now=at(seconds).timestamp())

    async def outside(self, seconds: float, **row: Any) -> None:
        """Report usage from outside, so many seconds from noon."""
        await self.claude.post("reports/outside", rows=[{"at": at(seconds).timestamp(), **row}])

    async def lie(self, lie: str, **how: Any) -> None:
        """Tell this lie and no other."""
        answer = await self.claude.control.delete("/_sandbox/reports/lies")
        assert answer.json()["lies"] == []
        await self.claude.post("reports/lies", lies=[{"lie": lie, **how}])

    async def _all(self, report: Any, asked: dict[str, Any]) -> list[Any]:
        span = {"starting_at": at(-HOUR * 12), "ending_at": at(HOUR * 12)}
        return [row async for row in report.list(**{**span, **asked})]


@asynccontextmanager
async def reported(key: str = "sk-ant-admin-test", **how: Any) -> AsyncIterator[Reported]:
    async with (
        stand_in(clock=NOON.timestamp, **how) as claude,
        anthropic.AsyncAnthropic(api_key=key, base_url=claude.url, max_retries=0) as admin,
    ):
        yield Reported(claude, admin.beta.organization.analytics)


def tokens_of(rows: list[Any]) -> dict[str, int]:
    """The sums of usage rows, by the names that the journal has."""
    usages = [row.usage for row in rows]
    return {
        "requests": sum(each.requests for each in usages),
        "input": sum(each.uncached_input_tokens for each in usages),
        "cache_write_5m": sum(each.cache_creation.ephemeral_5m_input_tokens for each in usages),
        "cache_write_1h": sum(each.cache_creation.ephemeral_1h_input_tokens for each in usages),
        "cache_read": sum(each.cache_read_input_tokens for each in usages),
        "output": sum(each.output_tokens for each in usages),
    }
