"""Every rule of rating, each as a reply worked out by hand in its comment.

Prices in the comments are dollars per million tokens, amounts in millionths of a dollar.
"""

from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from tallystick.pricing import Rating, TokenCounts, TokenKind, rate

from .replies import NOW, day, reply, usage

OPUS = "claude-opus-5"  # 5 in, 25 out, 6.25 and 10 writes, 0.50 read
HAIKU = "claude-haiku-5-5"


def priced(message: dict[str, Any], *, on: str | None = None, batch: bool = False) -> Rating:
    rating = rate(message, at=day(on) if on else NOW, batch=batch)
    assert rating.status == "priced", rating.reason
    assert sum((line.amount_usd for line in rating.lines), Decimal(0)) == rating.cost_usd
    assert rating.reason == ""
    assert rating.book_version
    return rating


def cost(message: dict[str, Any], *, on: str | None = None, batch: bool = False) -> Decimal:
    found = priced(message, on=on, batch=batch).cost_usd
    assert found is not None
    return found


def unpriced(message: dict[str, Any], *, on: str | None = None, batch: bool = False) -> str:
    rating = rate(message, at=day(on) if on else NOW, batch=batch)
    assert rating.status == "unpriced", rating
    assert rating.cost_usd is None
    assert rating.lines == ()
    return rating.reason


def entry(kind: str, model: str | None = None, **counts: int) -> dict[str, Any]:
    made = {"type": kind, **usage(**counts)}
    return made if model is None else {**made, "model": model}


# --- Usage fields ---------------------------------------------------------------------------------
def test_cached_input_is_priced_beside_input_and_never_twice():
    # 100x5 + 1,000x6.25 + 10,000x0.50 = 500 + 6,250 + 5,000 = 11,750
    rating = priced(reply(OPUS, usage(100, 0, write_5m=1_000, read=10_000)))
    assert rating.cost_usd == Decimal("0.01175")
    assert rating.tokens == TokenCounts(input=100, cache_write_5m=1_000, cache_read=10_000)
    assert rating.tokens.prompt == 11_100


def test_thinking_is_part_of_the_output():
    # 10x5 + 1,000x25 = 25,050, whatever the breakdown says
    used = usage(10, 1_000, output_tokens_details={"thinking_tokens": 900})
    assert cost(reply(OPUS, used)) == Decimal("0.02505")


def test_tokens_are_told_by_kind():
    used = usage(1, 2, 3, 4, 5, server_tool_use={"web_search_requests": 6})
    by_kind = priced(reply(OPUS, used)).tokens.by_kind()
    assert by_kind == {
        TokenKind.INPUT: 1,
        TokenKind.OUTPUT: 2,
        TokenKind.CACHE_WRITE_5M: 3,
        TokenKind.CACHE_WRITE_1H: 4,
        TokenKind.CACHE_READ: 5,
        TokenKind.WEB_SEARCH: 6,
    }


def test_null_and_absent_counts_are_nothing():
    # 100x5 + 10x25 = 750
    used = {"input_tokens": 100, "output_tokens": 10, "cache_read_input_tokens": None}
    assert cost(reply(OPUS, used)) == Decimal("0.00075")


def test_a_split_without_its_sum_is_enough():
    # 200x6.25 + 100x10 = 2,250
    used = {
        "input_tokens": 0,
        "output_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100},
    }
    assert cost(reply(OPUS, used)) == Decimal("0.00225")


def test_a_reply_that_used_nothing_costs_nothing():
    rating = priced(reply(OPUS, usage()))
    assert rating.cost_usd == 0
    assert rating.lines == ()


def test_a_prewarmed_cache_is_billed_without_output():
    # max_tokens 0: 5,000x10 = 50,000
    assert cost(reply(OPUS, usage(0, 0, write_1h=5_000), content=[])) == Decimal("0.05")


def test_writes_of_unknown_lifetime_are_not_guessed():
    used = usage(1, 1, write_5m=10)
    for split in ({}, {"cache_creation": None}):
        bare = {name: value for name, value in used.items() if name != "cache_creation"} | split
        assert "usage.cache_creation is missing" in unpriced(reply(OPUS, bare))


def test_a_split_that_does_not_add_up_is_not_guessed():
    used = usage(1, 1, write_5m=10) | {"cache_creation_input_tokens": 11}
    assert "usage.cache_creation does not add up" in unpriced(reply(OPUS, used))


@pytest.mark.parametrize("wrong", [-1, 1.0, 1.5, "1", True, [1], {}, 10**12 + 1, float("nan")])
@pytest.mark.parametrize(
    "name",
    ["input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"],
)
def test_a_count_that_is_no_count_is_refused_by_name(name: str, wrong: object):
    assert f"usage.{name}" in unpriced(reply(OPUS, usage(1, 1) | {name: wrong}))


def test_the_largest_plausible_count_is_exact():
    # 10^12 x 25 millionths = 25,000,000 dollars
    assert cost(reply(OPUS, usage(0, 10**12))) == Decimal(25_000_000)


@pytest.mark.parametrize(
    ("used", "named"),
    [
        (usage(1, 1) | {"input_tokens": None}, "usage.input_tokens is missing"),
        ({"input_tokens": 1}, "usage.output_tokens is missing"),
        (usage(1, 1, cache_creation=[]), "usage.cache_creation is not an object"),
        (
            usage(1, 1, cache_creation={"ephemeral_5m_input_tokens": -1}),
            "usage.cache_creation.ephemeral_5m_input_tokens",
        ),
        (
            usage(1, 1, cache_creation={"ephemeral_24h_input_tokens": 5}),
            "usage.cache_creation.ephemeral_24h_input_tokens is not a count that",
        ),
        (usage(1, 1, server_tool_use=7), "usage.server_tool_use is not an object"),
        (
            usage(1, 1, server_tool_use={"web_search_requests": 0.5}),
            "usage.server_tool_use.web_search_requests",
        ),
        (
            usage(1, 1, server_tool_use={"web_fetch_requests": -5}),
            "usage.server_tool_use.web_fetch_requests",
        ),
        (
            usage(1, 1, server_tool_use={"video_render_requests": 1}),
            "usage.server_tool_use.video_render_requests is not a count that",
        ),
        (usage(1, 1, audio_input_tokens=9), "usage.audio_input_tokens is not a count that"),
        (usage(1, 1, service_tier=1), "usage.service_tier is not text"),
        (usage(1, 1, inference_geo=["us"]), "usage.inference_geo is not text"),
        (usage(1, 1, speed={}), "usage.speed is not text"),
        (usage(1, 1, iterations={"type": "message"}), "usage.iterations is not a list"),
        (usage(1, 1, iterations=0), "usage.iterations is not a list"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(used: dict[str, Any], named: str):
    assert named in unpriced(reply(OPUS, used))


def test_new_fields_that_count_nothing_are_let_pass():
    used = usage(1, 1, audio_input_tokens=0, cache_note="warm", latency={"ms": 4})
    assert priced(reply(OPUS, used))


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"model": None}, "model is missing"),
        ({"model": ["claude-opus-5"]}, "model is missing"),
        ({"model": ""}, "model is missing"),
        ({"usage": None}, "usage is missing"),
        ({"usage": []}, "usage is missing"),
        ({"content": "text"}, "content is not a list"),
        ({"content": ["text"]}, "content[0] is not an object"),
        ({"stop_reason": 3}, "stop_reason is not text"),
        ({"stop_reason": "refusal", "content": None}, "content is missing"),
    ],
)
def test_a_reply_of_another_shape_is_refused_by_name(more: dict[str, Any], named: str):
    assert named in unpriced(reply(OPUS, usage(1, 1)) | more)


def test_an_unknown_model_is_parked_with_its_tokens():
    rating = rate(reply("claude-opus-99", usage(7, 8)), at=NOW)
    assert rating.status == "unpriced"
    assert rating.reason == "the price book does not know the model 'claude-opus-99'"
    assert rating.tokens == TokenCounts(input=7, output=8)


def test_a_disputed_price_is_parked():
    assert "disputed" in unpriced(reply("claude-mythos-preview", usage(1, 1)))


# --- Batches, tiers, geography, speed -------------------------------------------------------------
def test_a_batch_item_costs_half_in_every_kind():
    # (1,000x5 + 1,000x25 + 1,000x6.25 + 1,000x10 + 1,000x0.50) / 2 = 46,750 / 2 = 23,375
    used = usage(1_000, 1_000, 1_000, 1_000, 1_000)
    rating = priced(reply(OPUS, used), batch=True)
    assert rating.cost_usd == Decimal("0.023375")
    assert [line.unit_usd * 1_000_000 for line in rating.lines] == [
        Decimal(half) for half in ("2.5", "12.5", "3.125", "5", "0.25")
    ]
    assert rating.batch
    assert rating.multiplier == Decimal("0.5")


def test_the_reply_says_itself_that_it_was_a_batch_item():
    # 1,000x5 / 2 = 2,500, halved once
    message = reply(OPUS, usage(1_000, 0, service_tier="batch"))
    assert cost(message) == cost(message, batch=True) == Decimal("0.0025")


def test_searches_cost_a_cent_each_beside_every_multiplier():
    # 3 x 0.01; 1,000x5 x 0.5 x 1.1 = 2,750
    used = usage(1_000, 0, inference_geo="us", server_tool_use={"web_search_requests": 3})
    rating = priced(reply(OPUS, used), batch=True)
    assert rating.cost_usd == Decimal("0.03") + Decimal("0.00275")
    search = rating.lines[-1]
    assert (search.kind, search.quantity, search.unit_usd) == ("web_search", 3, Decimal("0.01"))


def test_fetches_are_free():
    # 1,000x5 = 5,000
    used = usage(1_000, 0, server_tool_use={"web_fetch_requests": 9, "web_search_requests": None})
    assert cost(reply(OPUS, used)) == Decimal("0.005")


def test_inference_in_the_us_costs_a_tenth_more_in_every_kind():
    # 46,750 x 1.1 = 51,425
    used = usage(1_000, 1_000, 1_000, 1_000, 1_000, inference_geo="us")
    assert cost(reply(OPUS, used)) == Decimal("0.051425")


@pytest.mark.parametrize("geo", [None, "global", "not_available"])
def test_inference_anywhere_costs_the_list_price(geo: str | None):
    assert cost(reply(OPUS, usage(1_000, 0, inference_geo=geo))) == Decimal("0.005")


@pytest.mark.parametrize("geo", ["eu", "US", "", "global "])
def test_another_geography_is_not_guessed(geo: str):
    assert "inference_geo" in unpriced(reply(OPUS, usage(1, 1, inference_geo=geo)))


@pytest.mark.parametrize(
    ("model", "offered"),
    [
        ("claude-opus-4-6", True),
        ("claude-sonnet-4-6", True),
        ("claude-haiku-5-5", True),
        ("claude-opus-4-5", False),
        ("claude-sonnet-4-5-20250929", False),
        ("claude-haiku-4-5", False),
    ],
)
def test_inference_in_the_us_is_offered_from_4_6_on(model: str, offered: bool):
    message = reply(model, usage(1_000, 0, inference_geo="us"))
    if offered:
        assert cost(message) == cost(reply(model, usage(1_000, 0))) * Decimal("1.1")
    else:
        assert "does not offer inference_geo 'us'" in unpriced(message)


@pytest.mark.parametrize("tier", ["priority", "flex", "flex_discount", "priority_on_demand", ""])
def test_other_service_tiers_are_not_guessed(tier: str):
    assert "service_tier" in unpriced(reply(OPUS, usage(1, 1, service_tier=tier)))


def test_a_priority_item_of_a_batch_is_not_halved():
    assert "contract" in unpriced(reply(OPUS, usage(1, 1, service_tier="priority")), batch=True)


def test_standard_tier_and_speed_are_the_list_price():
    used = usage(1_000, 0, service_tier="standard", speed="standard")
    assert cost(reply(OPUS, used)) == Decimal("0.005")


@pytest.mark.parametrize(
    ("model", "on", "expected"),
    [
        # 1,000 in and 1,000 out at 16/80: 96,000
        ("claude-fable-5-2", "2026-11-20", "0.096"),
        ("claude-mythos-5-2", "2026-11-20", "0.096"),
        # at 8/40: 48,000
        ("claude-opus-5-5", "2026-11-20", "0.048"),
        # at 10/50: 60,000
        ("claude-opus-5", "2026-11-20", "0.06"),
        ("claude-opus-4-8", "2026-11-29T23:59", "0.06"),
        # at 30/150: 180,000
        ("claude-opus-4-7", "2026-07-23T23:59", "0.18"),
        ("claude-opus-4-6", "2026-06-28T23:59", "0.18"),
        # silently standard, 5/25: 30,000
        ("claude-opus-4-6", "2026-06-29", "0.03"),
    ],
)
def test_fast_mode_costs_more_where_it_is_offered(model: str, on: str, expected: str):
    assert cost(reply(model, usage(1_000, 1_000, speed="fast")), on=on) == Decimal(expected)


@pytest.mark.parametrize(
    ("model", "on"),
    [
        ("claude-opus-4-8", "2026-11-30"),
        ("claude-opus-4-7", "2026-07-24"),
        ("claude-opus-4-6", "2026-02-17"),
        ("claude-opus-4-5", "2026-11-20"),
        ("claude-sonnet-5-5", "2026-11-20"),
        ("claude-haiku-5-5", "2026-11-20"),
        ("claude-fable-5-1", "2026-11-20"),
    ],
)
def test_fast_mode_where_it_is_not_offered_is_not_guessed(model: str, on: str):
    reason = unpriced(reply(model, usage(1, 1, speed="fast")), on=on)
    assert f"does not offer speed 'fast' on {on}" in reason


def test_fast_mode_reaches_every_kind_and_stacks_with_geography():
    # 46,750 x 2 x 1.1 = 102,850
    used = usage(1_000, 1_000, 1_000, 1_000, 1_000, speed="fast", inference_geo="us")
    assert cost(reply(OPUS, used)) == Decimal("0.10285")


def test_fast_mode_of_a_long_prompt_stacks_with_its_tier():
    # Opus 4.6 over 200,000 before 2026-03-13: 10 x 6 = 60 in, 37.50 x 6 = 225 out
    # 200,001x60 + 1,000x225 = 12,000,060 + 225,000 = 12,225,060
    used = usage(200_001, 1_000, speed="fast")
    assert cost(reply("claude-opus-4-6", used), on="2026-03-12") == Decimal("12.22506")


def test_a_fast_batch_does_not_exist():
    used = usage(1, 1, speed="fast")
    assert "not offered in batches" in unpriced(reply(OPUS, used), batch=True)


def test_an_unknown_speed_is_not_guessed():
    assert "speed 'turbo'" in unpriced(reply(OPUS, usage(1, 1, speed="turbo")))


# --- The prompt-length cliff ----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("used", "expected"),
    [
        # 100,000x0.10 + 1,000x0.50 = 10,000 + 500 = 10,500
        (usage(100_000, 1_000), "0.0105"),
        # one token more: 100,001x0.50 + 1,000x2.50 = 50,000.5 + 2,500 = 52,500.5
        (usage(100_001, 1_000), "0.0525005"),
        # cached tokens count: 1x0.50 + 50,000x0.625 + 50,000x0.05 = 0.5 + 31,250 + 2,500
        (usage(1, 0, write_5m=50_000, read=50_000), "0.0337505"),
        # 50,000x0.125 + 50,000x0.01 = 6,250 + 500
        (usage(0, 0, write_5m=50_000, read=50_000), "0.00675"),
        # output does not: 99,999x0.10 + 64,000x0.50 = 9,999.9 + 32,000
        (usage(99_999, 64_000), "0.0419999"),
    ],
)
def test_haiku_costs_five_times_as_much_above_100_000_prompt_tokens(
    used: dict[str, Any], expected: str
):
    assert cost(reply(HAIKU, used)) == Decimal(expected)


def test_the_cliff_is_per_request_inside_batches_too():
    # 100,001x0.50 / 2 = 25,000.25
    assert cost(reply(HAIKU, usage(100_001, 0)), batch=True) == Decimal("0.02500025")


def test_the_cliff_is_decided_by_each_sampling_not_by_their_sum():
    # two samplings of 60,000: 120,000x0.10 = 12,000
    parts = [entry("message", input=60_000), entry("message", input=60_000)]
    rating = priced(reply(HAIKU, usage(120_000, 0, iterations=parts)))
    assert rating.cost_usd == Decimal("0.012")
    assert len(rating.lines) == 1


def test_one_sampling_above_the_cliff_leaves_the_other_below():
    # 100,001x0.50 + 50,000x0.10 = 50,000.5 + 5,000 = 55,000.5
    parts = [entry("message", input=100_001), entry("message", input=50_000)]
    rating = priced(reply(HAIKU, usage(150_001, 0, iterations=parts)))
    assert rating.cost_usd == Decimal("0.0550005")
    assert [(line.quantity, line.unit_usd) for line in rating.lines] == [
        (100_001, Decimal("0.0000005")),
        (50_000, Decimal("0.0000001")),
    ]


# --- Iterations -----------------------------------------------------------------------------------
def test_compaction_and_advice_come_on_top_at_their_own_models():
    # message: 100x5 + 10x25 = 750; compaction on the same model: 2,000x5 + 300x25 = 17,500
    # advice by Sonnet 5.5 at 2/10: 1,000x2 + 200x10 = 4,000; together 22,250
    parts = [
        entry("compaction", input=2_000, output=300),
        entry("advisor_message", "claude-sonnet-5-5", input=1_000, output=200),
        entry("message", input=100, output=10),
    ]
    rating = priced(reply(OPUS, usage(100, 10, iterations=parts)))
    assert rating.cost_usd == Decimal("0.02225")
    assert rating.tokens == TokenCounts(input=3_100, output=510)
    assert [(line.model, line.kind, line.quantity) for line in rating.lines] == [
        (OPUS, "input", 2_100),
        (OPUS, "output", 310),
        ("claude-sonnet-5-5", "input", 1_000),
        ("claude-sonnet-5-5", "output", 200),
    ]


def test_message_iterations_are_not_added_to_what_they_sum_up_to():
    # 300x5 + 30x25 = 2,250, once
    parts = [entry("message", input=100, output=10), entry("message", OPUS, input=200, output=20)]
    assert cost(reply(OPUS, usage(300, 30, iterations=parts))) == Decimal("0.00225")


def test_extras_without_message_entries_come_on_top_of_the_top_level():
    # 100x5 + 10x25 + 1,000x5 = 5,750
    advice = entry("advisor_message", "claude-sonnet-5", input=1_000)
    used = usage(100, 10, iterations=[advice])
    # 750 + 1,000x2 = 2,750, the reply's own lines first
    rating = priced(reply(OPUS, used))
    assert rating.cost_usd == Decimal("0.00275")
    assert [line.model for line in rating.lines] == [OPUS, OPUS, "claude-sonnet-5"]
    # 750 + 1,000x5 = 5,750
    used = usage(100, 10, iterations=[entry("compaction", input=1_000)])
    assert cost(reply(OPUS, used)) == Decimal("0.00575")


def test_no_iterations_is_like_none():
    for none in ([], None):
        assert cost(reply(OPUS, usage(1_000, 0, iterations=none))) == Decimal("0.005")


@pytest.mark.parametrize(
    ("counts", "named"),
    [
        ({"input": 99}, "usage.input_tokens is not the sum"),
        ({"output": 1}, "usage.output_tokens is not the sum"),
        ({"read": 1}, "usage.cache_read_input_tokens is not the sum"),
        ({"write_5m": 1}, "usage.cache_creation_input_tokens is not the sum"),
    ],
)
def test_iterations_that_disagree_with_the_top_level_are_not_guessed(
    counts: dict[str, int], named: str
):
    parts = [entry("message", **{"input": 100} | counts)]
    assert named in unpriced(reply(OPUS, usage(100, 0, iterations=parts)))


def test_iterations_may_take_the_lifetime_of_the_only_writes_there_are():
    # 500x10 = 5,000 and 500x6.25 = 3,125, in two steps of 250
    for lifetime, expected in (("write_1h", "0.005"), ("write_5m", "0.003125")):
        part = entry("message", **{lifetime: 250}) | {"cache_creation": None}
        used = usage(0, 0, **{lifetime: 500}, iterations=[part, part])
        assert cost(reply(OPUS, used)) == Decimal(expected)


def test_attempts_of_a_fallback_do_not_take_the_lifetime_of_another():
    attempt = entry("message", "claude-fable-5", output=1, write_1h=9) | {"cache_creation": None}
    served = entry("fallback_message", OPUS, write_5m=9)
    message = reply(OPUS, usage(0, 0, write_5m=9, iterations=[attempt, served]))
    assert "usage.iterations[0].cache_creation is missing" in unpriced(message)


def test_the_only_sampling_that_wrote_wrote_all_of_it():
    # 300x6.25 + 200x10 = 1,875 + 2,000 = 3,875
    writer = entry("message", write_5m=300, write_1h=200) | {"cache_creation": None}
    used = usage(0, 0, write_5m=300, write_1h=200, iterations=[writer, entry("message")])
    assert cost(reply(OPUS, used)) == Decimal("0.003875")


def test_samplings_do_not_share_out_a_mixed_lifetime():
    writer = entry("message", write_5m=250) | {"cache_creation": None}
    used = usage(0, 0, write_5m=300, write_1h=200, iterations=[writer, writer])
    assert "usage.iterations[0].cache_creation is missing" in unpriced(reply(OPUS, used))


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ("message", "usage.iterations[0] is not an object"),
        (entry("thinking_message"), "usage.iterations[0].type is not a known kind"),
        ({"type": ["message"]}, "usage.iterations[0].type is not a known kind"),
        ({"type": "message"}, "usage.iterations[0].input_tokens is missing"),
        (entry("advisor_message"), "usage.iterations[0].model is missing"),
        (entry("compaction") | {"model": 4}, "usage.iterations[0].model is not text"),
        (entry("message") | {"video_tokens": 3}, "usage.iterations[0].video_tokens is not a"),
        (entry("advisor_message", "claude-zeta-1", input=1), "'claude-zeta-1'"),
    ],
)
def test_an_iteration_that_cannot_be_read_is_refused_by_name(part: object, named: str):
    assert named in unpriced(reply(OPUS, usage(0, 0, iterations=[part])))


def test_geography_holds_for_the_advisor_too():
    # (100x5 + 100x1) x 1.1: Haiku 4.5 cannot be asked to run in the US
    parts = [entry("message", input=100), entry("advisor_message", "claude-haiku-4-5", input=100)]
    message = reply(OPUS, usage(100, 0, inference_geo="us", iterations=parts))
    assert "claude-haiku-4-5 does not offer inference_geo 'us'" in unpriced(message)


def test_fast_mode_beside_another_model_is_not_guessed():
    parts = [entry("message", input=1), entry("advisor_message", "claude-opus-5-5", input=1)]
    message = reply(OPUS, usage(1, 0, speed="fast", iterations=parts))
    assert "other models is not known" in unpriced(message)


# --- Fallback -------------------------------------------------------------------------------------
def fallback(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Opus 4.8 served after Fable 5 declined; the top level counts what served."""
    return reply("claude-opus-4-8", usage(412, 264, iterations=list(parts)), **more)


SERVED = entry("fallback_message", "claude-opus-4-8", input=412, output=264)


def test_an_attempt_declined_without_output_is_free():
    # 412x5 + 264x25 = 2,060 + 6,600 = 8,660; Fable's 408 cost nothing
    rating = priced(fallback(entry("message", "claude-fable-5", input=408), SERVED))
    assert rating.cost_usd == Decimal("0.00866")
    assert rating.tokens == TokenCounts(input=412, output=264)


def test_an_attempt_declined_after_output_is_billed_at_its_own_price():
    # Fable 5 at 10/50: 408x10 + 20x50 = 5,080; Opus 4.8: 8,660; together 13,740
    rating = priced(fallback(entry("message", "claude-fable-5", input=408, output=20), SERVED))
    assert rating.cost_usd == Decimal("0.01374")
    assert [line.model for line in rating.lines] == ["claude-fable-5"] * 2 + ["claude-opus-4-8"] * 2


def test_a_declined_attempt_without_a_name_is_free_without_output_and_else_not_guessed():
    assert cost(fallback(entry("message", input=408), SERVED)) == Decimal("0.00866")
    message = fallback(entry("message", input=408, output=1), SERVED)
    assert "usage.iterations[0].model is missing" in unpriced(message)
    message = fallback(entry("message", input=408) | {"model": 5}, SERVED)
    assert "usage.iterations[0].model is not text" in unpriced(message)


def test_earlier_steps_of_the_serving_model_are_billed():
    # 100x5 + 412x5 + 264x25 = 500 + 8,660 = 9,160
    assert cost(fallback(entry("message", "claude-opus-4-8", input=100), SERVED)) == Decimal(
        "0.00916"
    )


def test_compaction_before_a_fallback_has_no_known_model():
    message = fallback(entry("compaction", input=1), SERVED)
    assert "usage.iterations[0].model is missing" in unpriced(message)
    # 1x10 + 8,660 = 8,670
    named = fallback(entry("compaction", "claude-fable-5", input=1), SERVED)
    assert cost(named) == Decimal("0.00867")


def test_a_chain_that_nobody_served_has_no_price():
    message = fallback(entry("message", "claude-fable-5", input=408))
    assert "no attempt that served" in unpriced(message)


def test_a_chain_that_declined_throughout_is_not_billed():
    message = fallback(
        entry("message", "claude-fable-5", input=408),
        entry("message", "claude-opus-4-8", input=412),
        stop_reason="refusal",
        content=[{"type": "fallback", "from": {"model": "claude-fable-5"}}],
    )
    rating = rate(message, at=NOW)
    assert rating.status == "not_billed"
    assert rating.tokens == TokenCounts(input=820)


def test_garbage_at_the_top_level_of_a_fallback_is_still_refused():
    message = fallback(SERVED)
    message["usage"]["input_tokens"] = -1
    assert "usage.input_tokens" in unpriced(message)


# --- Stop reasons ---------------------------------------------------------------------------------
def test_a_refusal_before_output_is_not_billed_and_keeps_its_tokens():
    message = reply("claude-fable-5", usage(106, 1), content=[], stop_reason="refusal")
    rating = rate(message, at=NOW)
    assert (rating.status, rating.cost_usd, rating.lines) == ("not_billed", 0, ())
    assert rating.tokens == TokenCounts(input=106, output=1)
    assert "refused before any output" in rating.reason


def test_a_refusal_before_output_was_billed_until_2026_06_02():
    # 106x10 + 1x50 = 1,110
    message = reply("claude-fable-5", usage(106, 1), content=[], stop_reason="refusal")
    assert cost(message, on="2026-06-01T23:59") == Decimal("0.00111")
    assert rate(message, at=day("2026-06-02")).status == "not_billed"


def test_a_refusal_after_output_is_billed():
    # 106x10 + 20x50 = 2,060
    message = reply("claude-fable-5", usage(106, 20), stop_reason="refusal")
    assert cost(message) == Decimal("0.00206")


def test_a_refused_item_of_a_batch_is_not_billed():
    message = reply("claude-fable-5", usage(106, 1), content=[], stop_reason="refusal")
    rating = rate(message, at=NOW, batch=True)
    assert (rating.status, rating.batch) == ("not_billed", True)


@pytest.mark.parametrize(
    ("stop_reason", "partial"),
    [
        ("max_tokens", True),
        ("model_context_window_exceeded", True),
        ("end_turn", False),
        ("stop_sequence", False),
        ("tool_use", False),
        ("pause_turn", False),
        ("compaction", False),
        ("something_new", False),
    ],
)
def test_every_other_stop_reason_is_billed_from_usage(stop_reason: str, partial: bool):
    # 1,000x5 = 5,000
    rating = priced(reply(OPUS, usage(1_000, 0), stop_reason=stop_reason))
    assert (rating.cost_usd, rating.partial) == (Decimal("0.005"), partial)


@pytest.mark.parametrize("ending", [{"stop_reason": None}, {}])
def test_a_reply_that_was_cut_off_is_indeterminate(ending: dict[str, Any]):
    message = reply(OPUS, usage(1_000, 1))
    del message["stop_reason"]
    rating = rate(message | ending, at=NOW)
    assert (rating.status, rating.cost_usd, rating.lines) == ("indeterminate", None, ())
    assert "lower bound" in rating.reason
    assert rating.tokens == TokenCounts(input=1_000, output=1)
    # what was seen: 1,000x5 + 1x25 = 5,025
    assert rating.at_least_usd == Decimal("0.005025")


def test_the_caller_can_know_that_a_reply_was_cut_off():
    rating = rate(reply(OPUS, usage(1_000, 0)), at=NOW, indeterminate=True, batch=True)
    assert (rating.status, rating.at_least_usd) == ("indeterminate", Decimal("0.0025"))


def test_a_cut_reply_without_usage_has_no_lower_bound():
    rating = rate({"model": OPUS, "stop_reason": None}, at=NOW)
    assert (rating.status, rating.at_least_usd) == ("indeterminate", None)
    assert "usage is missing" in rating.reason


# --- Code execution -------------------------------------------------------------------------------
def tool(name: str, caller: object = None) -> dict[str, Any]:
    return {"type": "server_tool_use", "id": "srvtoolu_1", "name": name, "caller": caller}


RAN = {"code_execution_requests": 1}


@pytest.mark.parametrize(
    "message",
    [
        reply(OPUS, usage(1, 1, server_tool_use=RAN)),
        reply(OPUS, usage(1, 1), content=[tool("code_execution")]),
        reply(OPUS, usage(1, 1), content=[{"type": "text"}, tool("bash_code_execution")]),
        # web tools of before 2026-02-09, which only Claude itself can call
        reply(OPUS, usage(1, 1, server_tool_use=RAN), content=[tool("web_search")]),
        reply(
            OPUS,
            usage(1, 1, server_tool_use=RAN),
            content=[tool("web_search", {"type": "direct"}), tool("web_fetch", {"type": None})],
        ),
    ],
)
def test_container_time_is_not_guessed(message: dict[str, Any]):
    assert "container time" in unpriced(message)


def test_code_that_calls_the_newer_web_tools_runs_free():
    # 1,000x5 + 1 search = 5,000 + 10,000
    caller = {"type": "code_execution_20260120", "tool_id": "srvtoolu_0"}
    used = usage(1_000, 0, server_tool_use=RAN | {"web_search_requests": 1})
    content = [tool("code_execution"), tool("web_search", caller)]
    for blocks in (content, content[::-1]):
        assert cost(reply(OPUS, used, content=blocks)) == Decimal("0.015")


def test_web_tools_alone_run_no_code():
    # 1,000x5 + 2 searches
    used = usage(1_000, 0, server_tool_use={"web_search_requests": 2})
    content = [tool("web_search"), tool("tool_search_tool_regex")]
    assert cost(reply(OPUS, used, content=content)) == Decimal("0.025")


# --- The instant ----------------------------------------------------------------------------------
def test_an_instant_in_another_zone_is_the_same_instant():
    # 2026-10-06T17:00-07:00 is 2026-10-07T00:00Z: 1,000,000 reads at 0.10
    message = reply("claude-sonnet-5-5", usage(read=1_000_000))
    for at, expected in (
        ("2026-10-06T17:00:00-07:00", "0.1"),
        ("2026-10-06T16:59:59.999999-07:00", "0.2"),
        ("2026-10-07T01:59:59+02:00", "0.2"),
    ):
        assert rate(message, at=datetime.fromisoformat(at)).cost_usd == Decimal(expected)


def test_a_naive_instant_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="offset from UTC"):
        rate(reply(OPUS, usage(1, 1)), at=NOW.replace(tzinfo=None))


def test_a_reply_from_before_its_model_is_not_priced():
    assert "no price before 2026-11-09" in unpriced(
        reply("claude-fable-5-2", usage(1, 1)), on="2026-11-08T23:59"
    )
