"""A reply as server-sent events, in the order and with the figures of the real stream.

`message_start` carries the first usage with the split of cache writes by lifetime and
`output_tokens` 1; each `message_delta` carries cumulative totals without that split; iterations
appear only there. Input may grow on the way. Source: facts on Claude, 'Streaming'.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from tallystick.sandbox.claude.replies import Reply
from tallystick.sandbox.claude.tokens import CHARACTERS_PER_TOKEN, count_text

_TOKENS_PER_DELTA = 16
_STEP = _TOKENS_PER_DELTA * CHARACTERS_PER_TOKEN


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of an answer's body: `tokens` of output are in it; `last` ends the answer.

    It leaves after `pause` seconds.
    """

    data: bytes
    tokens: int = 0
    last: bool = False
    pause: float = 0.0


def event(kind: str, data: dict[str, Any], *, tokens: int = 0, last: bool = False) -> Part:
    """Return one server-sent event."""
    text = json.dumps({"type": kind, **data}, separators=(",", ":"))
    return Part(f"event: {kind}\ndata: {text}\n\n".encode(), tokens, last)


def stream_parts(reply: Reply) -> Iterator[Part]:
    """Return the events of a reply."""
    yield _start(reply)
    yield event("ping", {})
    for index, block in enumerate(reply.content):
        yield from _block(index, block)
    if reply.growth:
        midway = replace(reply.tokens, input=reply.tokens.input - reply.growth // 2)
        yield _delta(replace(reply, tokens=midway, iterations=()), {"stop_reason": None})
    stop = {"stop_reason": reply.stop_reason, "stop_details": reply.stop_details}
    yield _delta(reply, stop)
    yield event("message_stop", {}, last=True)


def _start(reply: Reply) -> Part:
    first = replace(
        reply.tokens,
        input=reply.tokens.input - reply.growth,
        output=min(1, reply.tokens.output),
    )
    message: dict[str, Any] = {
        **replace(reply, tokens=first, iterations=()).message(),
        "model": reply.start_model or reply.model,
        "content": [],
        "stop_reason": None,
        "stop_details": None,
    }
    return event("message_start", {"message": message})


def _block(index: int, block: dict[str, Any]) -> Iterator[Part]:
    text: str = block.get("text", "")
    opening = {**block, "text": ""} if text else block
    yield event("content_block_start", {"index": index, "content_block": opening})
    for at in range(0, len(text), _STEP):
        piece = text[at : at + _STEP]
        delta = {"index": index, "delta": {"type": "text_delta", "text": piece}}
        yield event("content_block_delta", delta, tokens=count_text(piece))
    yield event("content_block_stop", {"index": index})


def _delta(reply: Reply, stop: dict[str, Any]) -> Part:
    usage = reply.usage()
    for only_at_the_start in ("cache_creation", "service_tier", "inference_geo", "speed"):
        del usage[only_at_the_start]
    return event("message_delta", {"delta": {**stop, "stop_sequence": None}, "usage": usage})
