"""The one place that speaks to Claude's Message Batches: bytes out, facts or bytes in.

The official SDK carries the calls, its own retries off: a repeated create makes a second batch.
Bodies and results stay bytes. The SDK's reader of results tells neither a file that was cut behind
a line from a whole one nor where in the file it is, and drops what had arrived before a reset
(facts on Claude, 'Message Batches'); here whoever reads counts for itself.

`results_url` is fetched as it is given, with the key. So one that is not at our own address is
refused: the key would go to whoever answers there.
"""

from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import datetime
from typing import cast

import anthropic
import httpx2
from anthropic import AsyncStream
from pydantic import BaseModel

from activities.claude_api import ClaudeCallError, named_failures
from activities.claude_clients import claude_client
from tallystick.errors import BATCH_RESULTS_CUT, BATCH_RESULTS_ELSEWHERE

SILENCE = 60.0
"""Seconds without a byte until a file of results counts as cut."""
_PATH = "/v1/messages/batches"
_PAGE = 100
_CANNOT_BE_CANCELED = (
    anthropic.BadRequestError,
    anthropic.NotFoundError,
    anthropic.ConflictError,
)
"""How a batch that has ended answers is not documented."""


class Batch(BaseModel):
    """A batch as the provider shows it; `request_counts` are zeros until all of it has ended."""

    id: str
    processing_status: str
    request_counts: dict[str, int]
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None
    cancel_initiated_at: datetime | None = None
    results_url: str | None = None

    @property
    def items(self) -> int:
        """How many requests it has."""
        return sum(self.request_counts.values())

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.processing_status == "ended" and self.ended_at is not None

    @property
    def may_be_canceled(self) -> bool:
        """Whether it runs and nobody has cancelled it."""
        return self.processing_status == "in_progress"

    @property
    def tally(self) -> dict[str, int]:
        """How many results it has of each type that it has any of."""
        counts = self.request_counts.items()
        return {name: count for name, count in counts if count and name != "processing"}


class _Page(BaseModel):
    data: list[Batch]
    has_more: bool
    last_id: str | None = None


class BatchApi:
    """Message Batches behind one key at one address."""

    def __init__(self, api_key: str, base_url: str | None, *, timeout: float):
        """Prepare the client; `timeout` is in seconds for one call, but not for a whole file."""
        self._client = claude_client(api_key, base_url, timeout=timeout)

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.close()

    async def create(self, body: bytes) -> Batch:
        """Make a batch of a body as it is: `{"requests": [...]}`.

        Raises:
            ClaudeCallError: without an answer nobody knows whether there is a batch now.
        """
        with named_failures():
            response = await self._client.post(
                _PATH,
                content=body,
                cast_to=httpx2.Response,
                options={"headers": {"content-type": "application/json"}},
            )
            return Batch.model_validate_json(response.content)

    async def retrieve(self, batch_id: str) -> Batch | None:
        """Return a batch as it is now, or None where the provider shows none of that id.

        Raises:
            ClaudeCallError: for every other trouble.
        """
        with named_failures():
            try:
                response = await self._client.get(f"{_PATH}/{batch_id}", cast_to=httpx2.Response)
            except anthropic.NotFoundError:
                return None
            return Batch.model_validate_json(response.content)

    async def newest_first(self) -> AsyncGenerator[Batch, None]:
        """Yield all batches, the latest first, page by page.

        Raises:
            ClaudeCallError: for every trouble.
        """
        query: dict[str, object] = {"limit": _PAGE}
        while True:
            with named_failures():
                response = await self._client.get(
                    _PATH, cast_to=httpx2.Response, options={"params": query}
                )
                page = _Page.model_validate_json(response.content)
            for batch in page.data:
                yield batch
            if not page.has_more or page.last_id is None:
                return
            query = {"limit": _PAGE, "after_id": page.last_id}

    async def cancel(self, batch_id: str) -> None:
        """Ask for the batch to be cancelled; what is in flight may still be served and billed.

        One that has ended meanwhile, or is not shown yet, is left as it is.

        Raises:
            ClaudeCallError: for every trouble that passes.
        """
        with named_failures(), suppress(*_CANNOT_BE_CANCELED):
            await self._client.post(f"{_PATH}/{batch_id}/cancel", cast_to=httpx2.Response)

    async def results(self, batch: Batch) -> AsyncGenerator[bytes, None]:
        """Yield the file of results in blocks, from its begin; to be closed by whoever stops early.

        Raises:
            ClaudeCallError: the file is elsewhere, is not there, or was cut off. That it ended
                tidily and too soon is for the reader to see.
        """
        url = self._own_url(batch)
        with named_failures():
            response = cast(
                "httpx2.Response",
                await self._client.get(
                    url,
                    cast_to=httpx2.Response,
                    stream=True,
                    stream_cls=AsyncStream[object],
                    options={
                        "headers": {"accept": "application/x-jsonl"},
                        "timeout": httpx2.Timeout(SILENCE),
                    },
                ),
            )
        try:
            async for block in response.aiter_bytes():
                yield block
        except httpx2.TransportError as error:
            raise ClaudeCallError(
                BATCH_RESULTS_CUT,
                f"the results of {batch.id} were cut off: {type(error).__name__}",
            ) from error
        finally:
            await response.aclose()

    def _own_url(self, batch: Batch) -> str:
        if batch.results_url is None:
            raise ClaudeCallError(BATCH_RESULTS_CUT, f"{batch.id} does not show its results yet")
        own, given = self._client.base_url, httpx2.URL(batch.results_url)
        if _origin(given) != _origin(own):
            raise ClaudeCallError(
                BATCH_RESULTS_ELSEWHERE,
                f"the results of {batch.id} are said to be at {given.host!r}, and our key is for "
                f"{own.host!r} alone; see ANTHROPIC_BASE_URL",
            )
        return batch.results_url


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
