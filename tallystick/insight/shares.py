"""A turn's charge by what it was paid for: history, the new part of the prompt, answer, searches.

Two rules give every token its place. What the cache has or gets is the head of a prompt, and
history is the head of a prompt, so history takes the cached tokens first. Tokens that the cache
lost (`insight.cache`) stand here as the reads they should have been; what they cost more is apart.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, NamedTuple

from tallystick.insight.conversations import FollowedTurn
from tallystick.insight.turns import WIDE, wide_sum
from tallystick.pricing import TokenKind

Section = Literal["history", "prompts", "answers", "searches"]

_HEAD_FIRST = (
    TokenKind.CACHE_READ,
    TokenKind.CACHE_WRITE_1H,
    TokenKind.CACHE_WRITE_5M,
    TokenKind.INPUT,
)
_ALONE: dict[str, Section] = {TokenKind.OUTPUT: "answers", TokenKind.WEB_SEARCH: "searches"}


class Share(NamedTuple):
    """So many tokens (or searches) of a kind by a model, and what was charged for them."""

    section: Section
    model: str
    kind: str
    quantity: int
    money: Decimal


@dataclass(frozen=True, slots=True)
class Shares:
    """A turn's charge, taken apart; all of it together is the charge, but for endless digits."""

    shares: tuple[Share, ...]
    lost_cache_usd: Decimal

    def money(self, section: Section) -> Decimal:
        """Return what a section came to."""
        return wide_sum(share.money for share in self.shares if share.section == section)


class _Sold(NamedTuple):
    model: str
    kind: str
    quantity: int
    money: Decimal


def take_apart(followed: FollowedTurn) -> Shares:
    """Take a turn's charge apart; a turn without a price has no shares."""
    sold, lost = _as_if_read(followed)
    parts: list[Share] = []
    left = followed.resent_tokens
    for each in sorted(sold, key=_place_in_prompt):
        if each.kind in _ALONE:
            parts.append(Share(_ALONE[each.kind], *each))
            continue
        history = min(left, each.quantity)
        left -= history
        parts += _parted(each, history)
    return Shares(tuple(parts), lost)


def _as_if_read(followed: FollowedTurn) -> tuple[list[_Sold], Decimal]:
    turn = followed.turn
    sold = [
        _Sold(
            line.model,
            line.kind,
            line.quantity,
            WIDE.multiply(line.amount_usd, turn.charged_per_cost),
        )
        for line in turn.lines
    ]
    lost = Decimal(0)
    for missed in followed.miss.missed if followed.miss else ():
        if missed.extra_usd is None:
            continue
        (written,) = (
            each for each in sold if each.kind == missed.kind and each.model == turn.model
        )
        sold.remove(written)
        money = WIDE.multiply(written.money, WIDE.divide(missed.tokens, written.quantity))
        sold.append(
            _Sold(
                turn.model,
                TokenKind.CACHE_READ,
                missed.tokens,
                WIDE.subtract(money, missed.extra_usd),
            )
        )
        if missed.tokens < written.quantity:
            rest = written.quantity - missed.tokens
            sold.append(written._replace(quantity=rest, money=WIDE.subtract(written.money, money)))
        lost = WIDE.add(lost, missed.extra_usd)
    return sold, lost


def _place_in_prompt(each: _Sold) -> int:
    return 0 if each.kind in _ALONE else _HEAD_FIRST.index(TokenKind(each.kind))


def _parted(each: _Sold, history: int) -> Iterable[Share]:
    money = WIDE.multiply(each.money, WIDE.divide(history, each.quantity))
    if history:
        yield Share("history", each.model, each.kind, history, money)
    if history < each.quantity:
        rest = WIDE.subtract(each.money, money)
        yield Share("prompts", each.model, each.kind, each.quantity - history, rest)
