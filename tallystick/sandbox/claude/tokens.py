"""The stand-in's rule for counting tokens, and the counts by kind that billing is about.

The rule, so that a test can say what a prompt will count: text is one token per four characters,
rounded up per block; an image, and a document that is not plain text, is 1,500 tokens; any other
block, and each tool, is its compact JSON without `cache_control`, by the same four characters.
A prompt is the sum over its blocks, with nothing added. `count_tokens` and `usage` agree exactly,
which the real API does not promise (facts on Claude, 'count_tokens').
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tallystick.pricing import TokenCounts

CHARACTERS_PER_TOKEN = 4
OPAQUE_TOKENS = 1_500


@dataclass(frozen=True, slots=True)
class Tokens:
    """Counts by kind; no kind is contained in another."""

    input: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    cache_read: int = 0
    output: int = 0

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(
            self.input + other.input,
            self.cache_write_5m + other.cache_write_5m,
            self.cache_write_1h + other.cache_write_1h,
            self.cache_read + other.cache_read,
            self.output + other.output,
        )

    def as_dict(self) -> dict[str, int]:
        """Return the counts by name."""
        return asdict(self)

    def counts(self) -> TokenCounts:
        """Return the counts as the price book takes them."""
        return TokenCounts(
            input=self.input,
            output=self.output,
            cache_write_5m=self.cache_write_5m,
            cache_write_1h=self.cache_write_1h,
            cache_read=self.cache_read,
        )


def count_text(text: str) -> int:
    """Return the tokens of a text."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def count_block(block: Mapping[str, Any]) -> int:
    """Return the tokens of a content block or a tool."""
    match block:
        case {"type": "text", "text": str(text)}:
            return count_text(text)
        case {"type": "tool_result", "content": str() | list()}:
            return _count_content(block["content"])
        case {"type": "document", "source": {"type": "text", "data": str(text)}}:
            return count_text(text)
        case {"type": "document", "source": {"type": "content", "content": content}}:
            return _count_content(content)
        case {"type": "image" | "document"}:
            return OPAQUE_TOKENS
        case _:
            return count_text(canonical(block))


def canonical(block: Mapping[str, Any]) -> str:
    """Return a block as compact JSON without its breakpoint: equal for equal content."""
    content = {key: value for key, value in block.items() if key != "cache_control"}
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def _count_content(content: str | Iterable[Mapping[str, Any]]) -> int:
    if isinstance(content, str):
        return count_text(content)
    return sum(count_block(block) for block in content)
