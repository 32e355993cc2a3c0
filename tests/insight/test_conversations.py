"""Re-sent history, lost caches and growth, from counts alone. Amounts are worked out by hand."""

from datetime import timedelta
from decimal import Decimal

import pytest

from tallystick.insight import (
    ConversationSoFar,
    Turn,
    cache_miss,
    follow,
    resent_tokens,
    warnings_for,
)
from tallystick.insight.shares import take_apart
from tallystick.pricing import TokenKind
from tests.insight.turns import OPUS, turn


def test_a_prompt_re_sends_the_prompt_and_the_answer_before_it() -> None:
    first, second = turn(1_000, 200), turn(1_300, 50)
    assert [each.resent_tokens for each in follow([first, second])] == [0, 1_200]


def test_cached_tokens_are_part_of_the_prompt_that_is_re_sent() -> None:
    assert resent_tokens(turn(100, 10, read=1_200), turn(50, 200, write=1_000)) == 1_250


def test_an_answer_that_was_not_sent_back_whole_counts_for_no_more_than_the_prompt() -> None:
    assert resent_tokens(turn(1_050, 1), turn(1_000, 900)) == 1_050


def test_a_shorter_prompt_was_begun_afresh_and_re_sends_nothing() -> None:
    assert resent_tokens(turn(300, 1), turn(1_000, 200)) == 0


def test_a_turn_without_a_prompt_is_passed_over() -> None:
    turns = [turn(1_000, 100), turn(0, 0), turn(1_300, 50)]
    assert [each.resent_tokens for each in follow(turns)] == [0, 0, 1_100]


def test_conversations_do_not_mix_and_single_requests_have_no_history() -> None:
    turns = [
        turn(1_000, 100, conversation="a"),
        turn(1_000, 100, conversation="b"),
        turn(1_000, 100, conversation=None),
        turn(1_500, 100, conversation=None),
        turn(1_200, 100, conversation="a"),
    ]
    assert [each.resent_tokens for each in follow(turns)] == [0, 0, 0, 0, 1_100]


def test_a_conversation_goes_on_from_its_turn_before_the_period() -> None:
    followed = follow([turn(1_200, 100)], {"chat": turn(1_000, 100)})
    assert followed[0].resent_tokens == 1_100


def test_a_cache_that_ran_out_is_reported_with_its_extra_cost() -> None:
    first = turn(100, 50, write=10_000)
    late = turn(120, 50, write=10_200, minutes=12)
    miss = cache_miss(late, first)
    assert miss is not None
    assert (miss.tokens, miss.cause, miss.gap) == (10_000, "expired", timedelta(minutes=12))
    # Written at $2.50 a million instead of read at $0.10: 10,000 x 2.40 / 1,000,000.
    assert miss.extra_usd == Decimal("0.024")
    assert "cache expired or invalidated" in miss.in_words()
    assert "$0.024 extra" in miss.in_words()
    assert "12 minutes" in miss.in_words()


def test_the_extra_cost_is_what_the_customer_pays() -> None:
    miss = cache_miss(turn(120, write=10_000, minutes=12, markup="0.5"), turn(100, write=10_000))
    assert miss is not None
    assert miss.extra_usd == Decimal("0.036")


def test_within_its_lifetime_a_lost_cache_was_invalidated() -> None:
    first = turn(100, 50, write=10_000)
    changed = cache_miss(turn(120, 50, write=10_200, minutes=2), first)
    other = cache_miss(turn(120, 50, write=10_200, minutes=2, model=OPUS), first)
    assert changed is not None
    assert changed.cause == "prompt changed"
    assert other is not None
    assert other.cause == "model changed"


def test_an_hour_long_cache_is_judged_by_its_own_lifetime_and_price() -> None:
    first = turn(100, 50, write_1h=10_000)
    soon = cache_miss(turn(120, write_1h=10_000, minutes=12), first)
    late = cache_miss(turn(120, write_1h=10_000, minutes=61), first)
    assert soon is not None
    assert soon.cause == "prompt changed"
    assert late is not None
    assert late.cause == "expired"
    assert late.extra_usd == Decimal("0.039")  # 10,000 x (4.00 - 0.10) / 1,000,000


@pytest.mark.parametrize(
    ("repeat", "why"),
    [
        (turn(120, 50, read=10_000, minutes=2), "it was read"),
        (turn(120, 50, read=10_000, write=400, minutes=2), "it was read, and more was added"),
        (turn(120, 50, read=6_000, write=5_000, minutes=20), "most of it was read"),
        (turn(10_120, 50, minutes=20), "nothing asked for the cache"),
        (turn(120, 50, write=3_000, minutes=20), "the prompt is too short to repeat it"),
    ],
)
def test_what_is_no_repeat_or_no_loss_is_not_reported(repeat: Turn, why: str) -> None:
    assert cache_miss(repeat, turn(100, 50, write=10_000)) is None, why


def test_the_shares_of_a_turn_are_all_of_its_charge() -> None:
    first = turn(100, 50, write=10_000, markup="0.2")
    late = turn(120, 50, write=10_200, minutes=12, markup="0.2", searches=2)
    (_, followed) = follow([first, late])
    apart = take_apart(followed)
    # The re-sent 10,150: 10,000 that should have been reads at $0.10, 150 written at $2.50.
    assert apart.money("history") == Decimal("0.0016500")
    # 50 more written at $2.50, 120 uncached at $2.00; all with 20 % on top.
    assert apart.money("prompts") == Decimal("0.00043800")
    assert apart.money("answers") == Decimal("0.000600")
    assert apart.money("searches") == Decimal("0.024")
    assert apart.lost_cache_usd == Decimal("0.0288")
    whole = apart.lost_cache_usd + sum(share.money for share in apart.shares)
    assert whole == late.charge_usd
    reads = [share for share in apart.shares if share.kind == TokenKind.CACHE_READ]
    assert [(share.section, share.quantity) for share in reads] == [("history", 10_000)]


def _so_far(turns: list[Turn]) -> ConversationSoFar:
    charges = [each.charge_usd or Decimal(0) for each in turns]
    return ConversationSoFar(len(turns), sum(charges, Decimal(0)), charges[0], turns[-1])


def _growing(count: int, *, start: int = 20_000, step: int = 20_000) -> list[Turn]:
    return [turn(start + index * step, 500) for index in range(count)]


def test_a_growing_conversation_is_warned_of_long_before_fifty_dollars_become_four_hundred() -> (
    None
):
    turns = _growing(200, step=2_500)
    warned = next(
        index
        for index in range(1, len(turns))
        if any("sent again" in said for said in warnings_for(turns[index], _so_far(turns[:index])))
    )
    spent = sum(each.charge_usd or Decimal(0) for each in turns[: warned + 1])
    assert spent < 1
    assert sum(each.charge_usd or Decimal(0) for each in turns) > 50


def test_the_warning_says_what_as_many_turns_again_would_cost() -> None:
    turns = _growing(11, start=10_000, step=10_000)
    (said,) = warnings_for(turns[10], _so_far(turns[:10]))
    # 110,000 tokens, of which 100,500 re-sent. Turn i costs 0.02 i + 0.005: 11 turns $1.375;
    # turns 12 to 22 cost 0.02 x 187 + 0.055 = $3.795 on top.
    assert said.startswith("91 % of the prompt (about 402 pages of text)")
    assert "its 11 turns came to $1.38" in said
    assert "about $5.17" in said


@pytest.mark.parametrize(
    ("turns", "why"),
    [
        (_growing(3), "too few turns to tell"),
        (_growing(6, start=100, step=100), "short prompts"),
        ([turn(50_000 * 3**index, 10) for index in range(4)], "most of each prompt is new"),
        ([*_growing(5), turn(300, 10)], "begun afresh"),
    ],
)
def test_no_growth_is_no_warning(turns: list[Turn], why: str) -> None:
    assert warnings_for(turns[-1], _so_far(turns[:-1])) == (), why


def test_a_first_turn_is_never_warned_of() -> None:
    assert warnings_for(turn(90_000, 10), None) == ()
