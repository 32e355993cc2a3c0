"""Why one period cost more than another: the difference split into causes, to the last nano-USD.

Each cause is one step on the way from the first period's total to the second's, so the parts add
up by construction; what rounding the steps leaves over is a part of its own. In order, everything
after the first step being compared per call:

1. *calls*: the first period's average call, times the calls that came on top.
2. *cache_expired*: the extra cost of tokens that the cache lost (`insight.cache`). From here on
   they stand as the reads they should have been.
3. *price*: where both periods have the same model and kind of token, the second's tokens at its own
   average price instead of the first's: list price, plan, batch or speed.
4. *model*: the rest of them at their models' prices instead of the first period's average.
5. What is left are quantities at the first period's prices: *history* (re-sent,
   `insight.conversations`), *prompts* (their new part), *answers*, *searches*. Where a prompt's
   tokens moved between cached and uncached, that part of the step is *caching*.

A kind of token that only the second period has, has no price to compare and counts in step 5.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar, get_args

from tallystick.insight.conversations import FollowedTurn
from tallystick.insight.shares import Section, Share, take_apart
from tallystick.insight.turns import WIDE, to_nano, wide_sum
from tallystick.money import total

CAUSES: Mapping[str, tuple[str, str]] = {
    "calls": ("more calls", "fewer calls"),
    "cache_expired": ("cache expired or invalidated", "fewer lost caches"),
    "price": ("higher prices", "lower prices"),
    "model": ("dearer models", "cheaper models"),
    "history": ("more history re-sent", "less history re-sent"),
    "prompts": ("longer prompts", "shorter prompts"),
    "answers": ("longer answers", "shorter answers"),
    "searches": ("more web searches", "fewer web searches"),
    "caching": ("less of the prompts read from the cache", "more of them read from the cache"),
    "rounding": ("rounding of these parts", "rounding of these parts"),
}
"""Every cause, in words for a rise and for a fall."""

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Cause:
    """One part of the difference: positive where it made the second period dearer."""

    cause: str
    amount_usd: Decimal

    @property
    def in_words(self) -> str:
        """What the cause is called for a rise, or for a fall."""
        rise, fall = CAUSES[self.cause]
        return rise if self.amount_usd > 0 else fall


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two periods, and why the second differs. Money is what was charged.

    `causes` holds what is not zero, the largest first; its sum is `difference_usd` exactly.
    `unpriced` counts turns of either period that have no price yet and are left out.
    """

    before_usd: Decimal
    after_usd: Decimal
    before_calls: int
    after_calls: int
    causes: tuple[Cause, ...]
    unpriced: int

    @property
    def difference_usd(self) -> Decimal:
        """How much more the second period cost."""
        return self.after_usd - self.before_usd


def compare(before: Sequence[FollowedTurn], after: Sequence[FollowedTurn]) -> Comparison:
    """Split the difference between two periods' charges into its causes."""
    first, second = _Period(before), _Period(after)
    parts = {name: to_nano(amount) for name, amount in _steps(first, second).items()}
    parts["rounding"] = second.charged - first.charged - total(parts.values())
    causes = [Cause(name, amount) for name, amount in parts.items() if amount]
    return Comparison(
        before_usd=first.charged,
        after_usd=second.charged,
        before_calls=first.calls,
        after_calls=second.calls,
        causes=tuple(sorted(causes, key=lambda cause: -abs(cause.amount_usd))),
        unpriced=first.unpriced + second.unpriced,
    )


@dataclass(frozen=True, slots=True)
class _Sum:
    quantity: int
    money: Decimal

    @property
    def unit(self) -> Decimal:
        return WIDE.divide(self.money, self.quantity)


_NOTHING = _Sum(0, Decimal(0))


class _Period:
    """One period's calls, what was charged for them, and the shares of it."""

    def __init__(self, turns: Sequence[FollowedTurn]):
        priced = [each for each in turns if each.turn.charge_usd is not None]
        apart = [take_apart(each) for each in priced]
        self.calls, self.unpriced = len(priced), len(turns) - len(priced)
        self.charged = total(each.turn.charge_usd or Decimal(0) for each in priced)
        self.lost_cache = wide_sum(each.lost_cache_usd for each in apart)
        self.shares = [share for each in apart for share in each.shares]
        self.by_model = _summed(self.shares, _model_and_kind)
        self.by_kind = _summed(self.shares, _kind)
        self.by_section = _summed(self.shares, _section)


def _steps(first: _Period, second: _Period) -> dict[str, Decimal]:
    if not first.calls or not second.calls:
        return {"calls": second.charged - first.charged}
    scale = WIDE.divide(second.calls, first.calls)
    now = [share.money for share in second.shares]
    at_old_prices = _priced(second.shares, now, first.by_model, _model_and_kind)
    at_old_averages = _priced(second.shares, at_old_prices, first.by_kind, _kind)
    steps = {
        "calls": WIDE.subtract(WIDE.multiply(first.charged, scale), first.charged),
        "cache_expired": WIDE.subtract(second.lost_cache, WIDE.multiply(first.lost_cache, scale)),
        "price": WIDE.subtract(wide_sum(now), wide_sum(at_old_prices)),
        "model": WIDE.subtract(wide_sum(at_old_prices), wide_sum(at_old_averages)),
        "caching": Decimal(0),
    }
    for section in get_args(Section):
        old = first.by_section.get(section, _NOTHING)
        reached = wide_sum(
            money
            for share, money in zip(second.shares, at_old_averages, strict=True)
            if share.section == section
        )
        change = WIDE.subtract(reached, WIDE.multiply(old.money, scale))
        steps[section] = change
        if old.quantity:
            new = second.by_section.get(section, _NOTHING)
            more = WIDE.subtract(new.quantity, WIDE.multiply(old.quantity, scale))
            steps[section] = WIDE.multiply(more, old.unit)
            moved = WIDE.subtract(change, steps[section])
            steps["caching"] = WIDE.add(steps["caching"], moved)
    return steps


def _priced(
    shares: Sequence[Share],
    otherwise: Sequence[Decimal],
    prices: Mapping[_Key, _Sum],
    key_of: Callable[[Share], _Key],
) -> list[Decimal]:
    """Return what the shares come to at these prices; where there is none, as `otherwise` says."""
    return [
        WIDE.multiply(share.quantity, prices[key].unit)
        if (key := key_of(share)) in prices
        else money
        for share, money in zip(shares, otherwise, strict=True)
    ]


def _summed(shares: Iterable[Share], key_of: Callable[[Share], _Key]) -> dict[_Key, _Sum]:
    sums: dict[_Key, _Sum] = {}
    for share in shares:
        so_far = sums.get(key_of(share), _NOTHING)
        sums[key_of(share)] = _Sum(
            so_far.quantity + share.quantity, WIDE.add(so_far.money, share.money)
        )
    return sums


def _model_and_kind(share: Share) -> tuple[str, str]:
    return share.model, share.kind


def _kind(share: Share) -> str:
    return share.kind


def _section(share: Share) -> Section:
    return share.section
