"""What is counted: the kinds a reply is billed by, and how many of each.

The names in `TokenKind` are the vocabulary of the whole product: columns of the ledger, meters in
Stripe, lines on a bill. Input and output are never summed into one number, and cache writes keep
their lifetime, because each kind has a price of its own (requirements 2 to 4).
"""

from enum import StrEnum
from typing import NamedTuple


class TokenKind(StrEnum):
    """Everything a reply can be billed for."""

    INPUT = "input"
    OUTPUT = "output"
    CACHE_WRITE_5M = "cache_write_5m"
    CACHE_WRITE_1H = "cache_write_1h"
    CACHE_READ = "cache_read"
    WEB_SEARCH = "web_search"


TOKEN_KINDS = tuple(kind for kind in TokenKind if kind is not TokenKind.WEB_SEARCH)
"""The kinds that are tokens; a search is a fee, which no multiplier touches."""


class TokenCounts(NamedTuple):
    """Quantities by kind, in the order of `TokenKind`.

    `input` excludes cached tokens, as in Claude's usage: the prompt is `prompt` (facts on Claude,
    'Read this first', 1).
    """

    input: int = 0
    output: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    cache_read: int = 0
    web_search: int = 0

    @property
    def prompt(self) -> int:
        """Tokens of the whole prompt: uncached, written to the cache, and read from it."""
        return self.input + self.cache_write_5m + self.cache_write_1h + self.cache_read

    def by_kind(self) -> dict[TokenKind, int]:
        """Return every kind with its quantity, zeros included."""
        return dict(zip(TokenKind, self, strict=True))

    def plus(self, other: "TokenCounts") -> "TokenCounts":
        """Return the sum, kind by kind (`+` on named tuples would join them)."""
        return TokenCounts(*(a + b for a, b in zip(self, other, strict=True)))
