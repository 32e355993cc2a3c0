"""A prompt that should have come from the cache and did not: found in the counts of two turns.

The rule: the turn before left `reads + writes` tokens in the cache, and the prompt of this turn is
at least that long, so it repeats them. If less than half of them was read and this turn wrote to
the cache again, what was written in their place is missed, the one-hour writes first, as Claude
wants longer lifetimes earlier in a prompt. Half, because a reply that ran server tools reads its
own writes, which makes the sum larger than what is kept. The extra cost is what those tokens cost
as writes over what they would have cost as reads, by the price book (requirement 5).

Whether the entry ran out or the prompt changed before its end is told by the clock alone: longer
than the lifetime since the last turn, or not (facts on Claude, 'Usage fields').
"""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Literal

from tallystick.insight.turns import WIDE, Turn, to_nano, wide_sum
from tallystick.pricing import TOKEN_KINDS, NoPriceError, PriceBook, TokenKind, price_book
from tallystick.pricing.explain import dollars, pages

FIVE_MINUTES, ONE_HOUR = timedelta(minutes=5), timedelta(hours=1)
_READ = TOKEN_KINDS.index(TokenKind.CACHE_READ)


@dataclass(frozen=True, slots=True)
class Missed:
    """Tokens of one kind of write that should have been reads.

    `extra_usd` is what was charged more for them, not rounded; None while that is not known.
    """

    kind: TokenKind
    tokens: int
    extra_usd: Decimal | None


@dataclass(frozen=True, slots=True)
class CacheMiss:
    """What a turn wrote to the cache again instead of reading it; `gap` is since the last use."""

    missed: tuple[Missed, ...]
    cause: Literal["expired", "model changed", "prompt changed"]
    gap: timedelta

    @property
    def tokens(self) -> int:
        """All that was missed."""
        return sum(each.tokens for each in self.missed)

    @property
    def extra_usd(self) -> Decimal | None:
        """The extra charge in nano-USD precision; None while the turn has no price."""
        extra = [each.extra_usd for each in self.missed if each.extra_usd is not None]
        return to_nano(wide_sum(extra)) if extra else None

    def in_words(self) -> str:
        """Say it to the person who pays."""
        likely = {
            "expired": f"the last use was {_minutes(self.gap)} before, longer than it is kept",
            "model changed": "each model has a cache of its own, and the model changed",
            "prompt changed": "something before the end of the kept part changed",
        }[self.cause]
        extra = "" if self.extra_usd is None else f", which cost {dollars(self.extra_usd)} extra"
        return (
            f"cache expired or invalidated: {pages(self.tokens)} had to be kept again instead of "
            f"read{extra}; {likely}"
        )


def cache_miss(
    turn: Turn, before: Turn | None, *, book: PriceBook | None = None
) -> CacheMiss | None:
    """Return what `turn` missed of what `before`, the same conversation's last turn, had cached."""
    if before is None:
        return None
    kept, read = _written(before) + before.tokens.cache_read, turn.tokens.cache_read
    if turn.tokens.prompt < kept or read * 2 >= kept:
        return None
    lost = kept - read
    one_hour = min(turn.tokens.cache_write_1h, lost)
    five_minutes = min(turn.tokens.cache_write_5m, lost - one_hour)
    missed = tuple(
        Missed(kind, tokens, _extra(turn, kind, tokens, book or price_book()))
        for kind, tokens in (
            (TokenKind.CACHE_WRITE_1H, one_hour),
            (TokenKind.CACHE_WRITE_5M, five_minutes),
        )
        if tokens
    )
    if not missed:
        return None
    gap = turn.served_at - before.served_at
    if turn.model != before.model:
        return CacheMiss(missed, "model changed", gap)
    lifetime = ONE_HOUR if one_hour else FIVE_MINUTES
    return CacheMiss(missed, "expired" if gap > lifetime else "prompt changed", gap)


def _extra(turn: Turn, kind: TokenKind, tokens: int, book: PriceBook) -> Decimal | None:
    """Work out the extra charge from the line that billed these writes.

    Batch, geography and speed multiply all kinds alike, so the ratio of list prices holds.
    """
    unit = next(
        (line.unit_usd for line in turn.lines if line.kind == kind and line.model == turn.model),
        None,
    )
    if unit is None:
        return None
    try:
        standard = book.model(turn.model).tier(turn.served_at, turn.tokens.prompt).standard
    except NoPriceError:
        return None
    ratio = WIDE.divide(standard[_READ], standard[TOKEN_KINDS.index(kind)])
    extra = WIDE.multiply(tokens, WIDE.subtract(unit, WIDE.multiply(unit, ratio)))
    return WIDE.multiply(extra, turn.charged_per_cost)


def _written(turn: Turn) -> int:
    return turn.tokens.cache_write_5m + turn.tokens.cache_write_1h


def _minutes(gap: timedelta) -> str:
    minutes = max(1, round(gap.total_seconds() / 60))
    return "a minute" if minutes == 1 else f"{minutes:,} minutes"
