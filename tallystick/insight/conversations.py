"""How much of each prompt is the conversation so far, sent again, and where that is heading.

Claude keeps nothing between calls, so every turn sends all earlier ones again and pays for them
again: a conversation's cost grows with the square of its length. The rule, on counts alone: the
prompt of a turn begins with the prompt and the answer of the turn before, so as many tokens as
those had are re-sent history, at most the whole prompt. A prompt shorter than the one before cannot
hold it; there the conversation was cut or begun afresh, and nothing is counted as re-sent. A turn
without a prompt (a refusal that is not billed, counts that could not be read) is passed over. The
count errs upwards by what an answer had beside its text (thinking is not sent again).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from tallystick.insight.cache import CacheMiss, cache_miss
from tallystick.insight.turns import Turn
from tallystick.pricing import PriceBook, pages
from tallystick.pricing.explain import dollars

GROWTH_TURNS = 4
"""A conversation is warned of from this turn on: three prompts before it show the direction."""
GROWTH_TOKENS = 2_000
"""Shorter prompts cost too little to speak of."""
GROWTH_PERCENT = 80
"""From this share of re-sent history on, what is new in a prompt is the small part."""


@dataclass(frozen=True, slots=True)
class FollowedTurn:
    """A turn beside the one before it: tokens of re-sent history, and what the cache lost."""

    turn: Turn
    resent_tokens: int
    miss: CacheMiss | None


@dataclass(frozen=True, slots=True)
class ConversationSoFar:
    """What a conversation came to before its next turn. Money is what was charged."""

    turns: int
    charge_usd: Decimal
    first_charge_usd: Decimal
    last: Turn


def resent_tokens(turn: Turn, before: Turn | None) -> int:
    """Return how many tokens of the prompt were re-sent history, by the rule above."""
    if before is None or turn.tokens.prompt < before.tokens.prompt:
        return 0
    return min(turn.tokens.prompt, before.tokens.prompt + before.tokens.output)


def follow(
    turns: Iterable[Turn],
    before: Mapping[str, Turn] | None = None,
    *,
    book: PriceBook | None = None,
) -> list[FollowedTurn]:
    """Set each turn beside its conversation's turn before it.

    Args:
        turns: in the order they were served; requests outside conversations are let through.
        before: the last turn of each conversation before these, by conversation id.
        book: another book than the one that ships.
    """
    last = dict(before or {})
    followed: list[FollowedTurn] = []
    for turn in turns:
        earlier = last.get(turn.conversation_id) if turn.conversation_id else None
        followed.append(
            FollowedTurn(turn, resent_tokens(turn, earlier), cache_miss(turn, earlier, book=book))
        )
        if turn.conversation_id and turn.tokens.prompt:
            last[turn.conversation_id] = turn
    return followed


def warnings_for(
    turn: Turn, so_far: ConversationSoFar | None, *, book: PriceBook | None = None
) -> tuple[str, ...]:
    """Return what the payer of this turn should hear: a lost cache, a history that outgrows it."""
    if so_far is None:
        return ()
    miss = cache_miss(turn, so_far.last, book=book)
    growth = _growth(turn, so_far)
    return (*((miss.in_words(),) if miss else ()), *((growth,) if growth else ()))


def _growth(turn: Turn, so_far: ConversationSoFar) -> str | None:
    resent, prompt, count = resent_tokens(turn, so_far.last), turn.tokens.prompt, so_far.turns + 1
    if (
        count < GROWTH_TURNS
        or prompt < GROWTH_TOKENS
        or resent * 100 < prompt * GROWTH_PERCENT
        or turn.charge_usd is None
    ):
        return None
    spent = so_far.charge_usd + turn.charge_usd
    return (
        f"{resent * 100 // prompt} % of the prompt ({pages(resent)}) is the conversation so far, "
        f"sent again; its {count:,} turns came to {dollars(spent)}, and as many again would bring "
        f"it to about {dollars(_if_doubled(turn.charge_usd, spent, so_far))}; start a fresh "
        "conversation, or replace its history by a summary"
    )


def _if_doubled(latest: Decimal, spent: Decimal, so_far: ConversationSoFar) -> Decimal:
    """Continue the straight line from the first turn's charge to the latest, as long again."""
    count = so_far.turns + 1
    step = max(latest - so_far.first_charge_usd, Decimal(0)) / so_far.turns
    return spent + count * latest + step * count * (count + 1) / 2
