"""A body flattened into the order in which Claude reads and caches it: tools, system, messages."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tallystick.sandbox.claude.bodies import CountedBody
from tallystick.sandbox.claude.errors import ApiError
from tallystick.sandbox.claude.tokens import canonical, count_block

Ttl = Literal["5m", "1h"]

_MAX_BREAKPOINTS = 4


@dataclass(frozen=True, slots=True)
class Segment:
    """One cacheable block: where it stands, its content, and the breakpoint that ends it."""

    place: str
    block: Mapping[str, Any]
    tokens: int
    ttl: Ttl | None

    def content(self) -> bytes:
        """Return what identifies the block in a cached prefix."""
        return f"{self.place}\0{canonical(self.block)}\0".encode()


def segments_of(body: CountedBody) -> list[Segment]:
    """Return the prompt's blocks in order.

    Raises:
        ApiError: 400 for more than four breakpoints, or a long one behind a short one.
    """
    segments = [
        Segment(place, block, count_block(block), _ttl(block)) for place, block in _blocks(body)
    ]
    if body.cache_control is not None and segments:
        last = segments[-1]
        ttl = body.cache_control.get("ttl", "5m")
        segments[-1] = Segment(last.place, last.block, last.tokens, last.ttl or ttl)
    ttls = [segment.ttl for segment in segments if segment.ttl is not None]
    if len(ttls) > _MAX_BREAKPOINTS:
        raise ApiError(400, f"cache_control: at most {_MAX_BREAKPOINTS} blocks may carry it")
    if "5m" in ttls and "1h" in ttls[ttls.index("5m") :]:
        raise ApiError(400, "cache_control: ttl '1h' must not come after ttl '5m'")
    return segments


def _blocks(body: CountedBody) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for tool in body.tools:
        yield "tool", tool
    for block in _as_blocks(body.system):
        yield "system", block
    for turn in body.messages:
        for block in _as_blocks(turn["content"]):
            yield turn["role"], block


def _as_blocks(content: str | list[Any]) -> list[Mapping[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return content


def _ttl(block: Mapping[str, Any]) -> Ttl | None:
    control = block.get("cache_control")
    return None if control is None else control.get("ttl", "5m")
