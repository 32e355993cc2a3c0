"""Bounds, ceilings and quotes for requests that were not sent, worked out by hand."""

from decimal import Decimal
from typing import Any

import pytest

from tallystick.pricing import (
    NoPriceError,
    TokenKind,
    cliff_warnings,
    dearest_input_kind,
    estimate_cost,
    estimate_input_tokens,
    prompt_chars,
    quote,
)

from .replies import NOW, day


def body(content: Any, **more: Any) -> dict[str, Any]:
    return {
        "model": "claude-opus-5",
        "max_tokens": 1_000,
        "messages": [{"role": "user", "content": content}],
        **more,
    }


# --- Input tokens by size -------------------------------------------------------------------------
def test_text_is_bounded_by_its_bytes_and_its_characters():
    # 5,400 characters of which 4,500 are not spaces: at least 4,500 / 8 tokens, about 5,400 / 3,
    # never more than its bytes and what surrounds them
    estimate = estimate_input_tokens(body("Hello " * 900))
    assert estimate.low == 562
    assert 1_800 <= estimate.likely <= 1_850
    assert 5_400 <= estimate.high <= 5_550


def test_a_character_of_several_bytes_may_be_several_tokens():
    latin, cyrillic = estimate_input_tokens(body("a" * 900)), estimate_input_tokens(body("ж" * 900))
    assert cyrillic.high - latin.high == 900
    assert cyrillic.low == latin.low


def test_a_prompt_is_as_long_as_its_parts_as_json():
    params = {"model": "m", "system": "so", "messages": [{"role": "user", "content": "ü"}]}
    assert prompt_chars(params) == len('"so"') + len('[{"role":"user","content":"ü"}]')


def test_white_space_may_cost_nothing():
    assert estimate_input_tokens(body(" \n\t" * 3_000)).low == 0


def test_system_tools_and_every_turn_count():
    plain = estimate_input_tokens(body("Hello"))
    for more in (
        {"system": "x" * 800},
        {"system": [{"type": "text", "text": "x" * 800}]},
        {
            "messages": [
                {"role": "user", "content": "x" * 800},
                {"role": "user", "content": "Hello"},
            ]
        },
        {"tools": [{"name": "t", "description": "x" * 800, "input_schema": {}}]},
    ):
        estimate = estimate_input_tokens(body("Hello") | more)
        assert estimate.low == plain.low + 100
        assert estimate.high >= plain.high + 800


def test_what_is_not_prose_raises_only_the_upper_bounds():
    plain = estimate_input_tokens(body("Hello"))
    call = {"type": "tool_use", "name": "f", "input": {"x": "y" * 800, "n": 12345, "on": None}}
    estimate = estimate_input_tokens(body([{"type": "text", "text": "Hello"}, call]))
    assert estimate.low == plain.low
    assert estimate.high >= plain.high + 800


def test_an_image_counts_by_its_pixels_not_by_its_bytes():
    image = {"type": "image", "source": {"type": "base64", "data": "A" * 4_000_000}}
    linked = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    plain = estimate_input_tokens(body([{"type": "text", "text": "Hello"}]))
    for picture in (image, linked):
        estimate = estimate_input_tokens(body([{"type": "text", "text": "Hello"}, picture]))
        assert estimate.low == plain.low
        assert estimate.likely == plain.likely + 1_600
        assert estimate.high == plain.high + 5_000 + 16


def test_a_document_out_of_sight_is_bounded_only_by_the_context_window():
    for source in (
        {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
        {"type": "url", "url": "https://example.com/a.pdf"},
        {"type": "file", "file_id": "file_1"},
    ):
        estimate = estimate_input_tokens(body([{"type": "document", "source": source}]))
        assert estimate.low == 0
        assert 30_000 <= estimate.likely <= 30_100
        assert estimate.high == 1_000_000


def test_a_pdf_whose_pages_were_counted_is_estimated_by_them():
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
    asked = body([{"type": "text", "text": "Sum up."}, {"type": "document", "source": pdf}])
    plain = estimate_input_tokens(body([{"type": "text", "text": "Sum up."}]))
    counted = estimate_input_tokens(asked, pdf_pages=3)
    assert counted.low == plain.low
    assert counted.likely == plain.likely + 3 * 2_400
    assert counted.high == plain.high + 16 + 3 * 8_000
    assert estimate_input_tokens(asked, pdf_pages=500).high == 1_000_000

    # One beside it that is not in the body was not counted.
    linked = {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}}
    both = body([{"type": "document", "source": pdf}, linked])
    assert estimate_input_tokens(both, pdf_pages=3).high == 1_000_000


def test_a_document_of_text_is_text():
    source = {"type": "text", "media_type": "text/plain", "data": "x" * 6_000}
    estimate = estimate_input_tokens(body([{"type": "document", "source": source}]))
    assert 6_000 <= estimate.high <= 6_200


def test_servers_that_bring_their_own_tools_have_no_upper_bound():
    for more in (
        {"mcp_servers": [{"type": "url", "url": "https://example.com"}]},
        {"container": {"skills": ["xlsx"]}},
    ):
        assert estimate_input_tokens(body("Hello", **more)).high == 1_000_000


def test_a_tool_costs_more_than_its_definition():
    plain = estimate_input_tokens(body("Hello")).high
    tools = [{"type": "web_search_20260209", "name": "web_search"}, "not a tool"]
    assert estimate_input_tokens(body("Hello", tools=tools)).high >= plain + 6_000


def test_a_prompt_that_is_surely_too_long_stays_too_long():
    # 10,000,000 characters are 1,250,000 tokens at the least, also beside a document
    document = {"type": "document", "source": {"type": "url", "url": "https://example.com"}}
    estimate = estimate_input_tokens(body([{"type": "text", "text": "x" * 10_000_000}, document]))
    assert estimate.low == 1_250_000
    assert estimate.low <= estimate.likely <= estimate.high


# --- The dearest kind -----------------------------------------------------------------------------
HOUR = {"type": "ephemeral", "ttl": "1h"}
MINUTES = {"type": "ephemeral"}


@pytest.mark.parametrize(
    ("params", "kind"),
    [
        (body("Hello"), TokenKind.INPUT),
        (body("Hello", cache_control=MINUTES), TokenKind.CACHE_WRITE_5M),
        (body("Hello", cache_control=HOUR), TokenKind.CACHE_WRITE_1H),
        (
            body([{"type": "text", "text": "a", "cache_control": MINUTES}], cache_control=HOUR),
            TokenKind.CACHE_WRITE_1H,
        ),
        (
            body("a", system=[{"type": "text", "text": "a", "cache_control": HOUR}]),
            TokenKind.CACHE_WRITE_1H,
        ),
        (body([{"type": "image", "source": {}, "cache_control": HOUR}]), TokenKind.CACHE_WRITE_1H),
        (body("Hello", cache_control=None), TokenKind.INPUT),
        (body("Hello", tools=[{"name": "f", "input_schema": {}}]), TokenKind.INPUT),
        (body("Hello", tools=[{"type": "custom", "name": "f"}]), TokenKind.INPUT),
        # Claude caches between the steps of its own tools
        (body("Hello", tools=[{"type": "web_search_20260209"}]), TokenKind.CACHE_WRITE_5M),
    ],
)
def test_a_prompt_is_dearest_where_it_may_be_written_to_the_cache(
    params: dict[str, Any], kind: TokenKind
):
    assert dearest_input_kind(params) is kind


# --- Cost ceilings --------------------------------------------------------------------------------
def test_a_request_costs_at_most_its_prompt_and_its_longest_answer():
    # 10,000x5 + 1,000x25 = 75,000 millionths
    assert estimate_cost("claude-opus-5", 10_000, 1_000, NOW) == Decimal("0.075")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        # 10,000x10 + 25,000
        ({"input_kind": TokenKind.CACHE_WRITE_1H}, "0.125"),
        ({"batch": True}, "0.0375"),
        ({"inference_geo": "us"}, "0.0825"),
        ({"inference_geo": "global"}, "0.075"),
        ({"speed": "fast"}, "0.15"),
        ({"speed": "standard"}, "0.075"),
    ],
)
def test_what_multiplies_prices_multiplies_ceilings(more: dict[str, Any], expected: str):
    assert estimate_cost("claude-opus-5", 10_000, 1_000, NOW, **more) == Decimal(expected)


def test_a_ceiling_knows_the_cliff():
    # 100,000x0.10 + 1,000x0.50 = 10,500; one more: 100,001x0.50 + 1,000x2.50 = 52,500.5
    assert estimate_cost("claude-haiku-5-5", 100_000, 1_000, NOW) == Decimal("0.0105")
    assert estimate_cost("claude-haiku-5-5", 100_001, 1_000, NOW) == Decimal("0.0525005")


def test_an_empty_prompt_has_a_ceiling():
    # 1,000x0.50
    assert estimate_cost("claude-haiku-5-5", 0, 1_000, NOW) == Decimal("0.0005")


def test_a_length_without_a_price_still_has_a_ceiling():
    # 300,000x3
    assert estimate_cost("claude-sonnet-4-5", 300_000, 0, NOW) == Decimal("0.9")


def test_a_model_without_a_price_has_no_ceiling():
    with pytest.raises(NoPriceError, match="does not know"):
        estimate_cost("claude-opus-99", 1, 1, NOW)
    with pytest.raises(NoPriceError, match="disputed"):
        estimate_cost("claude-mythos-preview", 1, 1, NOW)


# --- Cliffs ahead ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (79_999, None),
        (
            80_000,
            "comes near 100,000 tokens, above which claude-haiku-5-5 costs up to 5 times as much",
        ),
        (100_000, "comes near 100,000 tokens"),
        (100_001, "is over 100,000 tokens"),
    ],
)
def test_a_cliff_is_warned_of_from_four_fifths_on(tokens: int, said: str | None):
    warnings = cliff_warnings("claude-haiku-5-5", tokens, NOW)
    assert [said in warning for warning in warnings if said] == ([True] if said else [])
    assert bool(warnings) is (said is not None)


def test_a_past_surcharge_is_warned_of_in_its_time_only():
    assert (
        "costs up to 2 times as much"
        in cliff_warnings("claude-opus-4-6", 190_000, day("2026-03-12"))[0]
    )
    assert cliff_warnings("claude-opus-4-6", 190_000, day("2026-03-13")) == ()


def test_a_length_without_a_price_is_warned_of():
    assert "no established price" in cliff_warnings("claude-sonnet-4-5", 190_000, NOW)[0]


# --- Quotes ---------------------------------------------------------------------------------------
def test_a_quote_tells_cost_and_what_would_save():
    asked = quote(body("Hello"), NOW, input_tokens=10_000)
    assert asked.input_tokens == (10_000, 10_000, 10_000)
    # 10,000x5 = 50,000; with 1,000x25 on top 75,000
    assert (asked.cost_low_usd, asked.cost_high_usd) == (Decimal("0.05"), Decimal("0.075"))
    # each repeat 10,000x(5 - 0.50); the first time 10,000x(6.25 - 5)
    assert asked.cache_saves_usd == Decimal("0.045")
    assert asked.cache_costs_usd == Decimal("0.0125")
    assert asked.batch_saves_usd == Decimal("0.0375")
    assert asked.warnings == ()
    assert (asked.model, asked.max_tokens, asked.book_version) == (
        "claude-opus-5",
        1_000,
        "2026-11-21",
    )


def test_a_quote_without_a_count_spans_the_bounds():
    # between 100 tokens and 800 bytes with their surroundings
    asked = quote(body("x" * 800), NOW)
    assert asked.cost_low_usd == Decimal("0.0005")
    assert asked.cost_high_usd == estimate_cost(
        "claude-opus-5", asked.input_tokens.high, 1_000, NOW
    )


def test_a_prompt_for_the_cache_may_be_read_or_written():
    asked = quote(body("Hello", cache_control=HOUR), NOW, input_tokens=10_000)
    # 10,000x0.50; 10,000x10 + 1,000x25
    assert (asked.cost_low_usd, asked.cost_high_usd) == (Decimal("0.005"), Decimal("0.125"))


def test_a_batch_saves_nothing_twice():
    asked = quote(body("Hello"), NOW, input_tokens=10_000, batch=True)
    assert asked.cost_high_usd == Decimal("0.0375")
    assert asked.batch_saves_usd is None


def test_a_fast_request_has_no_batch_price():
    asked = quote(body("Hello", speed="fast"), NOW, input_tokens=10_000)
    assert asked.cost_high_usd == Decimal("0.15")
    assert asked.batch_saves_usd is None


def test_a_quote_warns_of_the_cliff():
    asked = quote(body("Hello", model="claude-haiku-5-5"), NOW, input_tokens=90_000)
    assert len(asked.warnings) == 1


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ({"model": None}, "params.model"),
        ({"max_tokens": None}, "params.max_tokens"),
        ({"max_tokens": -1}, "params.max_tokens"),
        ({"max_tokens": 1.5}, "params.max_tokens"),
    ],
)
def test_a_quote_needs_a_model_and_a_longest_answer(wrong: dict[str, Any], names: str):
    with pytest.raises(ValueError, match=names):
        quote(body("Hello") | wrong, NOW)
