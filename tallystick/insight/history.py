"""What re-sent history came to over several turns: for a conversation, a bill, a statement."""

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from decimal import Decimal

from tallystick.insight.conversations import FollowedTurn
from tallystick.insight.shares import take_apart
from tallystick.insight.turns import to_nano, wide_sum
from tallystick.pricing import pages
from tallystick.pricing.explain import dollars


@dataclass(frozen=True, slots=True)
class History:
    """Sums over turns; money is what was charged, turns without a price left out of it.

    `resent_usd` is the part of `charge_usd` that paid for history sent again, `lost_cache_usd` the
    part that a cache which kept its promise would have saved.
    """

    turns: int
    prompt_tokens: int
    resent_tokens: int
    charge_usd: Decimal
    resent_usd: Decimal
    lost_cache_usd: Decimal

    @property
    def resent_percent(self) -> int:
        """How much of all prompts was history, in whole per cent."""
        return self.resent_tokens * 100 // self.prompt_tokens if self.prompt_tokens else 0

    def plus(self, other: "History") -> "History":
        """Return both together."""
        return History(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def in_words(self) -> str:
        """Say it to the person who pays."""
        said = f"{_turns(self.turns)} came to {dollars(self.charge_usd)}"
        if self.resent_tokens:
            said += (
                f"; {self.resent_percent} % of the prompts ({pages(self.resent_tokens)}) was "
                f"history sent again, for {dollars(self.resent_usd)}"
            )
        if self.lost_cache_usd:
            said += f"; caches that expired or were invalidated cost {dollars(self.lost_cache_usd)}"
        return said


def history_of(turns: Iterable[FollowedTurn]) -> History:
    """Add up what re-sent history and lost caches came to."""
    followed = list(turns)
    apart = [take_apart(each) for each in followed]
    return History(
        turns=len(followed),
        prompt_tokens=sum(each.turn.tokens.prompt for each in followed),
        resent_tokens=sum(each.resent_tokens for each in followed),
        charge_usd=wide_sum(each.turn.charge_usd or Decimal(0) for each in followed),
        resent_usd=to_nano(wide_sum(each.money("history") for each in apart)),
        lost_cache_usd=to_nano(wide_sum(each.lost_cache_usd for each in apart)),
    )


def _turns(count: int) -> str:
    return "1 turn" if count == 1 else f"{count:,} turns"
