"""The one place that speaks to Claude: a body in, a reply as raw JSON out, or a named failure.

The official SDK carries the request, its own retries off: they would repeat a POST that may have
been served, without an attempt row to show for it. Bodies and replies stay raw JSON, so that a
parameter or a usage field the SDK does not know yet is neither refused nor lost.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import anthropic
import httpx2
from anthropic import AsyncStream

from activities.claude_clients import claude_client
from activities.claude_stream import ReplyAssembler
from tallystick.errors import CLAUDE_NO_ANSWER, CLAUDE_STREAM_BROKEN, Failure, classify_claude

STREAM_FROM_MAX_TOKENS = 21_334
"""From here Claude wants a streamed call: a silent connection would be cut before the answer
(facts on Claude, 'SDK client', Timeout)."""

_PATH = "/v1/messages"
_COUNT_PATH = "/v1/messages/count_tokens"
_COUNTED = ("model", "messages", "system", "tools", "tool_choice", "thinking", "mcp_servers")
"""What count_tokens takes of a Messages body."""

Listener = Callable[[Mapping[str, Any]], None]
"""Hears every event of a streamed call as it arrives. Whatever it does, the bill is the same."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Claude's reply, whole, and the id Claude gave the call."""

    message: dict[str, Any]
    claude_request_id: str | None


class ClaudeCallError(Exception):
    """A call without a usable reply: which row of the error table, and what is known of it.

    `usage` is a lower bound of what was served, where a stream had told some of it.
    """

    def __init__(
        self,
        failure: Failure,
        message: str,
        *,
        retry_after: float | None = None,
        claude_request_id: str | None = None,
        usage: Mapping[str, Any] | None = None,
    ):
        super().__init__(message)
        self.failure = failure
        self.retry_after = retry_after
        self.claude_request_id = claude_request_id
        self.usage = usage


class ClaudeApi:
    """Claude behind one key at one address."""

    def __init__(self, api_key: str, base_url: str | None, *, timeout: float):
        """Prepare the client; `timeout` is in seconds for one whole call."""
        self._client = claude_client(api_key, base_url, timeout=timeout)

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.close()

    async def create(self, params: Mapping[str, Any], listener: Listener | None = None) -> Answer:
        """Make one call.

        Args:
            params: the Messages API body, without `stream`.
            listener: wants the events as they come; its presence makes the call a streamed one.

        Raises:
            ClaudeCallError: for every answer that is not a whole reply, and for none at all.
        """
        wants_stream = params.get("max_tokens", 0) >= STREAM_FROM_MAX_TOKENS
        assembler = ReplyAssembler()
        with named_failures(assembler):
            if wants_stream or listener is not None:
                return await self._stream(params, assembler, listener)
            response = await self._client.post(_PATH, body=dict(params), cast_to=httpx2.Response)
            return Answer(_object(response), response.headers.get("request-id"))

    async def count_tokens(self, params: Mapping[str, Any]) -> int:
        """Return Claude's own count of the prompt: an estimate for guards, never a bill.

        Raises:
            ClaudeCallError: as for a call.
        """
        prompt = {name: params[name] for name in _COUNTED if name in params}
        with named_failures():
            response = await self._client.post(_COUNT_PATH, body=prompt, cast_to=httpx2.Response)
            return int(_object(response)["input_tokens"])

    async def _stream(
        self, params: Mapping[str, Any], assembler: ReplyAssembler, listener: Listener | None
    ) -> Answer:
        stream = await self._client.post(
            _PATH,
            body={**params, "stream": True},
            cast_to=object,
            stream=True,
            stream_cls=AsyncStream[object],
        )
        claude_request_id = stream.response.headers.get("request-id")
        async with stream:
            async for event in stream:
                raw = cast("Mapping[str, Any]", event)
                assembler.take(raw)
                if listener is not None:
                    listener(raw)
        if not assembler.whole:
            raise ClaudeCallError(
                CLAUDE_STREAM_BROKEN,
                "the stream ended before Claude had said that the reply is whole",
                claude_request_id=claude_request_id,
                usage=assembler.usage,
            )
        return Answer(assembler.message, claude_request_id)


@contextmanager
def named_failures(assembler: ReplyAssembler | None = None) -> Generator[None, None, None]:
    """Turn what SDK and transport raise into a row of the error table.

    Args:
        assembler: holds what a stream had told before it broke; None where nothing is streamed.
    """
    assembler = assembler or ReplyAssembler()
    try:
        yield
    except anthropic.APIStatusError as error:
        raise ClaudeCallError(
            classify_claude(error.status_code, error.error_code or error.type),
            f"Claude answered {error.status_code}: {error.api_message or error.type}",
            retry_after=_retry_after(error.response),
            claude_request_id=error.request_id,
            usage=assembler.usage,
        ) from error
    except (anthropic.APIConnectionError, httpx2.TransportError, ValueError, KeyError) as error:
        # A cut connection, a time-out, or a body that ends too soon to be JSON. Mid-stream the
        # SDK lets the transport's own errors through (facts on Claude, 'Errors').
        raise ClaudeCallError(
            CLAUDE_STREAM_BROKEN if assembler.message else CLAUDE_NO_ANSWER,
            f"no whole answer from Claude: {type(error).__name__}",
            usage=assembler.usage,
        ) from error


def _object(response: httpx2.Response) -> dict[str, Any]:
    body: object = response.json()
    if not isinstance(body, dict):
        raise ValueError("the body is no JSON object")  # noqa: TRY004 - as for a cut body
    return cast("dict[str, Any]", body)


def _retry_after(response: httpx2.Response) -> float | None:
    """Return the seconds to wait that the answer asks for, if it asks."""
    for header, scale in (("retry-after-ms", 1_000), ("retry-after", 1)):
        try:
            return max(0.0, float(response.headers[header]) / scale)
        except (KeyError, ValueError):
            continue
    return None
