"""Prompt caching: which part of a prompt was read, which was written for how long, what is left.

A prefix is cached per API key and model, under a digest of all blocks up to a breakpoint. A
request reads the longest cached prefix that ends at one of its breakpoints or up to twenty blocks
before one; it writes from there to its last breakpoint. With both lifetimes, what lies before the
last one-hour breakpoint is a one-hour write, the rest a five-minute one. Only what follows the last
breakpoint is `input_tokens`. A read renews the prefix for its own lifetime. Prefixes below the
minimum are not cached, silently. Source: [build-with-claude/prompt-caching].
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tallystick.sandbox.claude.prompt import Segment, Ttl
from tallystick.sandbox.claude.tokens import Tokens

LIFETIMES: dict[Ttl, float] = {"5m": 300.0, "1h": 3_600.0}
"""Seconds."""

_LOOK_BACK = 20


@dataclass(slots=True)
class _Entry:
    expires: float
    lifetime: float


@dataclass(frozen=True, slots=True)
class _Prefix:
    """The prompt up to the end of one block."""

    key: bytes
    tokens: int
    ttl: Ttl | None


class PromptCache:
    """The prefixes of every key and model.

    Args:
        clock: seconds, the stand-in's own time.
        minimum: prefixes with fewer tokens are not cached.
    """

    def __init__(self, clock: Callable[[], float], minimum: int):
        self._clock = clock
        self._minimum = minimum
        self._entries: dict[bytes, _Entry] = {}
        self._sweep_at = 1_000

    def serve(self, owner: str, segments: Sequence[Segment], *, reads: bool = True) -> Tokens:
        """Read and write what the prompt's breakpoints ask; returns its input by kind.

        `owner` is whatever prefixes must not be shared across: the API key and the model. Without
        `reads` the request misses what is cached and writes it anew.
        """
        total = sum(segment.tokens for segment in segments)
        if all(segment.ttl is None for segment in segments):
            return Tokens(input=total)
        prefixes = _prefixes(owner, segments)
        breakpoints = [
            (index, prefix)
            for index, prefix in enumerate(prefixes)
            if prefix.ttl is not None and prefix.tokens >= self._minimum
        ]
        if not breakpoints:
            return Tokens(input=total)
        now = self._clock()
        read = self._read(prefixes, [index for index, _ in breakpoints], now) if reads else 0
        written = breakpoints[-1][1].tokens
        long = max((prefix.tokens for _, prefix in breakpoints if prefix.ttl == "1h"), default=0)
        for _, prefix in breakpoints:
            self._write(prefix, now)
        return Tokens(
            input=total - written,
            cache_write_5m=written - max(read, long),
            cache_write_1h=max(long - read, 0),
            cache_read=read,
        )

    def _read(self, prefixes: Sequence[_Prefix], breakpoints: Sequence[int], now: float) -> int:
        for breakpoint_ in reversed(breakpoints):
            for index in range(breakpoint_, max(breakpoint_ - _LOOK_BACK, 0) - 1, -1):
                entry = self._entries.get(prefixes[index].key)
                if entry is not None and entry.expires > now:
                    entry.expires = now + entry.lifetime
                    return prefixes[index].tokens
        return 0

    def _write(self, prefix: _Prefix, now: float) -> None:
        if prefix.ttl is None:
            return
        entry = self._entries.get(prefix.key)
        if entry is not None and entry.expires > now:
            entry.expires = now + entry.lifetime
            return
        lifetime = LIFETIMES[prefix.ttl]
        self._entries[prefix.key] = _Entry(now + lifetime, lifetime)
        if len(self._entries) >= self._sweep_at:
            live = {key: each for key, each in self._entries.items() if each.expires > now}
            self._entries, self._sweep_at = live, 2 * len(live) + 1_000


def _prefixes(owner: str, segments: Sequence[Segment]) -> list[_Prefix]:
    digest = hashlib.sha256(f"{owner}\0".encode())
    tokens = 0
    prefixes: list[_Prefix] = []
    for segment in segments:
        digest.update(segment.content())
        tokens += segment.tokens
        prefixes.append(_Prefix(digest.digest(), tokens, segment.ttl))
    return prefixes
