"""The HTTP manners of the API: bodies up to 32 MB, headers on every answer, errors as JSON."""

import json
import time
from collections.abc import Iterable
from typing import Any

from starlette.types import Receive, Scope, Send

from tallystick.sandbox.claude.errors import ApiError
from tallystick.sandbox.claude.keys import WORKSPACE

MAX_BODY = 32 * 1024 * 1024

_LIMITS = {
    "requests": 4_000,
    "tokens": 2_400_000,
    "input-tokens": 2_000_000,
    "output-tokens": 400_000,
}

_ENCODER = json.JSONEncoder(separators=(",", ":"))

Headers = list[tuple[bytes, bytes]]


class ClientGoneError(Exception):
    """The client left before its request was complete."""


def headers_of(scope: Scope) -> dict[str, str]:
    """Return the request's headers by lower-case name."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


async def read_body(receive: Receive, limit: int = MAX_BODY) -> bytes:
    """Return the whole body, of up to `limit` bytes.

    A body that is too large is still read to its end, or the client would see a broken connection
    in place of the answer.

    Raises:
        ApiError: 413.
        ClientGoneError: nobody is left to answer.
    """
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
        else:
            chunks.clear()
        more = message.get("more_body", False)
    if size > limit:
        raise ApiError(413, "Request exceeds the maximum allowed number of bytes")
    return b"".join(chunks)


def answer_headers(
    request_id: str, content_type: str, *, retry_after: float | None = None
) -> Headers:
    """Return what every answer carries. The rate limits are stated, not kept."""
    headers = [
        (b"content-type", content_type.encode()),
        (b"request-id", request_id.encode()),
        (b"anthropic-workspace-id", WORKSPACE.encode()),
        *_rate_limit_headers(),
    ]
    if retry_after is not None:
        headers.append((b"retry-after", f"{retry_after:g}".encode()))
    return headers


def json_bytes(body: Any) -> bytes:
    """Return compact JSON, in ASCII."""
    return _ENCODER.encode(body).encode()


async def send_json(send: Send, status: int, body: Any, headers: Headers) -> None:
    """Answer with JSON, whole."""
    data = json_bytes(body)
    length = (b"content-length", str(len(data)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": data})


async def send_error(send: Send, error: ApiError, request_id: str) -> None:
    """Answer with an error."""
    headers = answer_headers(request_id, "application/json", retry_after=error.retry_after)
    await send_json(send, error.status, error.body(request_id), headers)


def _rate_limit_headers() -> Iterable[tuple[bytes, bytes]]:
    reset = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()).encode()
    for kind, limit in _LIMITS.items():
        name, value = f"anthropic-ratelimit-{kind}-".encode(), str(limit).encode()
        yield name + b"limit", value
        yield name + b"remaining", value
        yield name + b"reset", reset
