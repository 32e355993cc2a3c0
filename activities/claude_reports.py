"""The one place that reads Anthropic's usage and cost reports: pages of rows out, or a named failure.

The official SDK carries the calls, its own retries off. A report is a list of pages, and each page
says how far the report has got (`data_refreshed_at`); a page that promises another one and does not
name it is a failure, since rows that never came would look like usage that never was.

Source: facts on Claude, 'Usage and cost reports'.
"""

from anthropic import AsyncAnthropic


class ClaudeReports:
    """The reports behind one admin key at one address."""

    def __init__(self, admin_key: str, base_url: str | None, *, timeout: float):
        """Prepare the client; `timeout` is in seconds for one page."""
        self._client = AsyncAnthropic(
            api_key=admin_key, base_url=base_url, max_retries=0, timeout=timeout
        )

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.close()
