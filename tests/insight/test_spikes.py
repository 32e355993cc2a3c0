"""Differences between periods: every cause alone, and all of them together to the last nano-USD."""

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.insight import Comparison, Turn, compare, follow
from tests.insight.turns import OPUS, SONNET, turn

HAIKU = "claude-haiku-5-5"
NANO = Decimal("1e-9")


def causes(before: list[Turn], after: list[Turn]) -> dict[str, Decimal]:
    compared = compare(follow(before), follow(after))
    _adds_up(compared)
    return {each.cause: each.amount_usd for each in compared.causes}


def _adds_up(compared: Comparison) -> None:
    assert sum(each.amount_usd for each in compared.causes) == compared.difference_usd


def _single(prompt: int = 1_000, answer: int = 100, **options: object) -> Turn:
    return turn(prompt, answer, conversation=None, **options)  # pyright: ignore[reportArgumentType]


def test_the_same_again_has_no_causes() -> None:
    assert causes([_single(), _single()], [_single(), _single()]) == {}


def test_more_of_the_same_calls_is_more_calls() -> None:
    # One call: 1,000 x $2 + 100 x $10 a million = $0.003.
    assert causes([_single()], [_single()] * 3) == {"calls": Decimal("0.006")}


def test_from_nothing_and_to_nothing_are_calls_too() -> None:
    assert causes([], [_single()]) == {"calls": Decimal("0.003")}
    assert causes([_single()], []) == {"calls": Decimal("-0.003")}
    assert causes([], []) == {}


def test_another_model_on_the_same_tokens_is_the_model() -> None:
    assert causes([_single()], [_single(model=OPUS)]) == {"model": Decimal("0.003")}


def test_another_mix_of_models_is_the_model() -> None:
    cheap, dear = _single(), _single(model=OPUS)
    found = causes([cheap, cheap, cheap, dear], [cheap, dear, dear, dear])
    assert found == {"model": Decimal("0.006")}


def test_longer_prompts_and_answers_are_told_apart() -> None:
    found = causes([_single()], [_single(3_000, 400)])
    assert found == {"prompts": Decimal("0.004"), "answers": Decimal("0.003")}


def test_a_price_that_changed_is_the_price() -> None:
    # Sonnet 5.5 cache reads: $0.20 a million before 2026-10-07, $0.10 since.
    old, new = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
    found = causes([_single(read=100_000, at=old)], [_single(read=100_000, at=new)])
    assert found == {"price": Decimal("-0.010")}


def test_a_plan_that_charges_more_is_the_price() -> None:
    assert causes([_single()], [_single(markup="0.2")]) == {"price": Decimal("0.0006")}


def test_web_searches_are_their_own_cause() -> None:
    assert causes([_single()], [_single(searches=3)]) == {"searches": Decimal("0.03")}


def test_re_sent_history_is_told_from_longer_prompts() -> None:
    fresh = [turn(1_000, 100, conversation=name) for name in "abc"]
    grown = [turn(1_000, 100), turn(2_100, 100), turn(3_200, 100)]
    found = causes(fresh, grown)
    # History: 1,100 + 2,200 tokens at $2 a million; every prompt has 1,000 that are new.
    assert found == {"history": Decimal("0.0066")}


def test_a_lost_cache_is_its_own_cause() -> None:
    kept = [turn(100, 10, write=10_000), turn(100, 10, read=10_000, minutes=2)]
    lost = [turn(100, 10, write=10_000), turn(100, 10, write=10_000, minutes=30)]
    assert causes(kept, lost) == {"cache_expired": Decimal("0.024")}


def test_giving_up_the_cache_is_caching_and_not_longer_prompts() -> None:
    cached = [_single(1_000, 10, read=9_000)]
    plain = [_single(10_000, 10)]
    # 9,000 tokens at $2.00 instead of $0.10 a million.
    assert causes(cached, plain) == {"caching": Decimal("0.0171")}


def test_turns_without_a_price_are_counted_and_left_out() -> None:
    unknown = _single(model="claude-nobody-knows")
    compared = compare(follow([_single()]), follow([_single(), unknown]))
    assert (compared.unpriced, compared.difference_usd, compared.causes) == (1, 0, ())


def test_causes_come_the_largest_first_and_in_words() -> None:
    compared = compare(follow([_single(1_000, 400)]), follow([_single(5_000, 300)]))
    assert [each.in_words for each in compared.causes] == ["longer prompts", "shorter answers"]


_turns = st.lists(
    st.builds(
        turn,
        prompt=st.integers(0, 150_000),
        answer=st.integers(0, 20_000),
        model=st.sampled_from([SONNET, OPUS, HAIKU]),
        conversation=st.sampled_from([None, "a", "b"]),
        minutes=st.integers(0, 200),
        markup=st.sampled_from(["0", "0.2", "0.333", "-0.1", "-1"]),
        searches=st.integers(0, 2),
        write=st.integers(0, 40_000),
        write_1h=st.integers(0, 40_000),
        read=st.integers(0, 40_000),
    ),
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(_turns, _turns)
def test_the_parts_always_add_up_exactly_and_rounding_stays_rounding(
    before: list[Turn], after: list[Turn]
) -> None:
    compared = compare(follow(before), follow(after))
    _adds_up(compared)
    rounding = [each.amount_usd for each in compared.causes if each.cause == "rounding"]
    # Ten parts, each off by half a nano-USD at the most.
    assert all(abs(amount) <= 5 * NANO for amount in rounding)


@settings(max_examples=50, deadline=None)
@given(_turns.filter(bool), st.integers(2, 5))
def test_any_period_so_many_times_over_is_more_calls_alone(turns: list[Turn], times: int) -> None:
    followed = follow(turns)
    compared = compare(followed, followed * times)
    _adds_up(compared)
    left = {each.cause for each in compared.causes if abs(each.amount_usd) > 5 * NANO}
    assert left <= {"calls"}
