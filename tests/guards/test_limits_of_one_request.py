"""The token limit and the cost ceiling: decided by size where that is certain, else by a count."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.errors import COST_CEILING_EXCEEDED, TOO_MANY_INPUT_TOKENS, UNKNOWN_MODEL
from tallystick.plans.guards import Limits, Pass, Refusal, Undecided, check
from tallystick.pricing import estimate_input_tokens

AT = datetime(2026, 11, 1, tzinfo=UTC)
DEFAULT = Limits(100_000, Decimal(10))


def body(text: str = "word", **changes: Any) -> dict[str, Any]:
    return {
        "model": "claude-sonnet-5-5",  # $2 in and $10 out a million
        "max_tokens": 1_000,
        "messages": [{"role": "user", "content": text}],
        **changes,
    }


def test_a_prompt_over_the_limit_at_its_very_least_is_refused_without_a_count() -> None:
    # 800,008 letters are 100,001 tokens at eight letters each, and no text has longer tokens.
    refused = check(body("x" * 800_008), DEFAULT, AT)
    assert isinstance(refused, Refusal)
    assert refused.failure is TOO_MANY_INPUT_TOKENS
    assert "at least 100,001 tokens (estimated), over the limit of 100,000" in refused.message
    assert "max_input_tokens" in refused.message


def test_between_the_bounds_only_a_count_decides() -> None:
    long = body("x" * 400_000)
    assert isinstance(check(long, DEFAULT, AT), Undecided)
    assert isinstance(check(long, DEFAULT, AT, counted=100_000), Pass)
    assert isinstance(check(long, DEFAULT, AT, counted=100_001), Refusal)


def test_a_document_whose_length_is_hidden_is_counted() -> None:
    source = {"type": "url", "url": "https://example.com/report.pdf"}
    hidden = body()
    hidden["messages"][0]["content"] = [{"type": "document", "source": source}]
    assert isinstance(check(hidden, DEFAULT, AT), Undecided)


def test_the_ceiling_is_met_to_the_last_token() -> None:
    # 100,000 in at $2 and 980,000 out at $10 a million: 0.2 + 9.8 = 10
    long = body("x" * 400_000, max_tokens=980_000)
    passed = check(long, DEFAULT, AT, counted=100_000)
    assert isinstance(passed, Pass)
    assert (passed.cost_usd, passed.counted) == (Decimal(10), True)
    refused = check({**long, "max_tokens": 980_001}, DEFAULT, AT, counted=100_000)
    assert isinstance(refused, Refusal)
    assert refused.failure is COST_CEILING_EXCEEDED
    assert "$10" in refused.message
    assert "start a fresh conversation" in refused.message


def test_the_ceiling_expects_a_prompt_that_is_written_to_the_cache() -> None:
    cached = body(cache_control={"type": "ephemeral", "ttl": "1h"}, max_tokens=0)
    passed = check(cached, DEFAULT, AT, counted=100_000)
    assert isinstance(passed, Pass)
    assert passed.cost_usd == Decimal("0.4")  # twice the input price


@pytest.mark.parametrize("model", ["claude-mythos-preview", "claude-unheard-of"])
def test_a_model_without_an_established_price_is_refused(model: str) -> None:
    refused = check(body(model=model), DEFAULT, AT)
    assert isinstance(refused, Refusal)
    assert refused.failure is UNKNOWN_MODEL
    assert refused.message.startswith("params.model: ")


def test_warnings_begin_at_four_fifths_of_either_limit() -> None:
    long = body("x" * 300_000, max_tokens=0)
    quiet = check(long, DEFAULT, AT, counted=79_999)
    told = check(long, DEFAULT, AT, counted=80_000)
    assert isinstance(quiet, Pass)
    assert isinstance(told, Pass)
    assert quiet.warnings == ()
    assert told.warnings == (
        "the prompt is about 80,000 tokens (estimated), near the limit of 100,000",
    )
    dear = check(body(max_tokens=800_000), DEFAULT, AT, counted=10)
    assert isinstance(dear, Pass)
    (warning,) = dear.warnings
    assert warning == "the request could cost $8 (estimated), near the ceiling of $10"


def test_a_warning_is_no_false_alarm_by_the_upper_bound() -> None:
    # 90,000 letters could be 90,000 tokens and are about 30,000.
    passed = check(body("x" * 90_000, max_tokens=0), DEFAULT, AT)
    assert isinstance(passed, Pass)
    assert passed.cost_usd >= Decimal("0.18")  # what is reserved is the upper bound all the same
    assert passed.warnings == ()


def test_a_price_cliff_is_seen_by_the_likely_size() -> None:
    wide = Limits(1_000_000, Decimal(10))
    # About 100,000 tokens likely; 37,500 at the very least, where there would be no warning.
    passed = check(body("x" * 300_000, model="claude-haiku-5-5"), wide, AT)
    assert isinstance(passed, Pass)
    assert any("claude-haiku-5-5 costs" in each for each in passed.warnings)


@given(
    st.text(max_size=3_000),
    st.integers(min_value=1, max_value=2_000),
    st.decimals(min_value="0.0001", max_value="0.02", places=4),
    st.integers(min_value=0, max_value=2_000),
)
def test_no_count_within_the_bounds_overturns_what_the_size_has_decided(
    text: str, max_input: int, max_cost: Decimal, max_tokens: int
) -> None:
    params, limits = body(text, max_tokens=max_tokens), Limits(max_input, max_cost)
    decided = check(params, limits, AT)
    bounds = estimate_input_tokens(params)
    for counted in {bounds.low, bounds.likely, bounds.high}:
        with_count = check(params, limits, AT, counted=counted)
        assert not isinstance(with_count, Undecided)
        if not isinstance(decided, Undecided):
            assert type(with_count) is type(decided)
        if isinstance(decided, Pass) and isinstance(with_count, Pass):
            assert with_count.cost_usd <= decided.cost_usd
