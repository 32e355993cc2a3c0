"""Rating under arbitrary replies, and against a slow reference that is written differently.

The reference reads the data files itself, row by row, and computes in fractions.
"""

import random
import tomllib
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from importlib.resources import files
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.pricing import estimate_input_tokens, evidence, price_book, rate, rate_line

from .replies import NOW, reply, usage

DATA: dict[str, Any] = {}
for _name in ("models.toml", "prices.toml", "rules.toml"):
    DATA |= tomllib.loads((files("tallystick.pricing") / "data" / _name).read_text("utf-8"))

FIELDS = {
    "input": lambda used: used["input_tokens"],
    "output": lambda used: used["output_tokens"],
    "cache_write_5m": lambda used: used["cache_creation"]["ephemeral_5m_input_tokens"],
    "cache_write_1h": lambda used: used["cache_creation"]["ephemeral_1h_input_tokens"],
    "cache_read": lambda used: used["cache_read_input_tokens"],
}

counts = st.integers(0, 400_000)
models = st.sampled_from(sorted(price_book().models))
instants = st.datetimes(datetime(2024, 12, 1), datetime(2027, 6, 1), timezones=st.just(UTC))
words = st.sampled_from(
    [None, "us", "global", "not_available", "eu", "standard", "batch", "priority", "fast", ""]
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(max_size=8)
    | words,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@st.composite
def usages(draw: st.DrawFn) -> dict[str, Any]:
    used = usage(draw(counts), draw(counts), draw(counts), draw(counts), draw(counts))
    used["server_tool_use"] = {"web_search_requests": draw(st.integers(0, 50))}
    used["inference_geo"] = draw(st.sampled_from([None, "us", "global"]))
    used["service_tier"] = draw(st.sampled_from([None, "standard", "batch"]))
    used["speed"] = draw(st.sampled_from([None, "standard", "fast"]))
    return used


@st.composite
def loose_replies(draw: st.DrawFn) -> dict[str, Any]:
    """Replies whose every part may be right, wrong or missing."""

    def either(right: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return right | json_values

    kinds = st.sampled_from(["message", "fallback_message", "compaction", "advisor_message"])
    part = st.fixed_dictionaries(
        {"type": either(kinds)},
        optional={
            "model": either(models),
            "input_tokens": either(counts),
            "output_tokens": either(counts),
            "cache_creation_input_tokens": either(counts),
            "cache_creation": json_values,
            "new_tokens": json_values,
        },
    )
    block = st.fixed_dictionaries(
        {"type": either(st.sampled_from(["text", "server_tool_use", "fallback"]))},
        optional={
            "name": either(st.sampled_from(["web_search", "code_execution"])),
            "caller": either(st.just({"type": "code_execution_20260120"})),
        },
    )
    used = st.fixed_dictionaries(
        {},
        optional={
            "input_tokens": either(counts),
            "output_tokens": either(counts),
            "cache_creation_input_tokens": either(counts),
            "cache_read_input_tokens": either(counts),
            "cache_creation": either(
                st.fixed_dictionaries({"ephemeral_5m_input_tokens": either(counts)})
            ),
            "server_tool_use": either(
                st.fixed_dictionaries(
                    {}, optional={"web_search_requests": json_values, "x_requests": json_values}
                )
            ),
            "iterations": either(st.lists(either(part), max_size=3)),
            "service_tier": either(words),
            "inference_geo": either(words),
            "speed": either(words),
            "new_tokens": json_values,
        },
    )
    return draw(
        st.fixed_dictionaries(
            {},
            optional={
                "model": either(models),
                "content": either(st.lists(either(block), max_size=3)),
                "stop_reason": either(st.sampled_from(["end_turn", "refusal", "max_tokens"])),
                "usage": either(used),
            },
        )
    )


def reference(message: dict[str, Any], at: datetime, batch: bool) -> Fraction | None:
    """Price a plain reply from the raw data; None when the data has no price for it."""
    used = message["usage"]
    today = at.date()

    def holds(row: dict[str, Any]) -> bool:
        return row["valid_from"] <= today < row.get("valid_until", date.max)

    (entry,) = [
        entry
        for entry in DATA["models"]
        if message["model"] in (entry["id"], *entry.get("aliases", []))
    ]
    batch = batch or used["service_tier"] == "batch"
    times = Fraction(1, 2) if batch else Fraction(1)
    if used["inference_geo"] == "us":
        if not entry["us_inference"]:
            return None
        times *= Fraction(11, 10)
    if used["speed"] == "fast":
        offered = [row for row in DATA["fast"] if row["model"] == entry["id"] and holds(row)]
        if batch or not offered:
            return None
        times *= Fraction(offered[0]["multiplier"])
    quantity = {kind: field(used) for kind, field in FIELDS.items()}
    prompt = sum(quantity.values()) - quantity["output"]
    if any(
        row["model"] == entry["id"] and row["valid_from"] <= today and prompt > row["prompt_over"]
        for row in DATA["no_price"]
    ):
        return None
    millionths = Fraction(0)
    for kind, number in quantity.items():
        rows = [
            row
            for row in DATA["prices"]
            if (row["model"], row["kind"]) == (entry["id"], kind)
            and holds(row)
            and (row.get("prompt_over", 0) < prompt or row.get("prompt_over", 0) == 0)
        ]
        if not rows:
            return None
        dearest = max(rows, key=lambda row: row.get("prompt_over", 0))
        millionths += number * Fraction(dearest["usd_per_million"]) * times
    searches = used["server_tool_use"]["web_search_requests"]
    return (
        millionths / 1_000_000 + searches * Fraction(DATA["web_search"]["usd_per_thousand"]) / 1000
    )


def shuffled(value: Any, seed: int) -> Any:
    if isinstance(value, dict):
        names = list(value)
        random.Random(seed).shuffle(names)
        return {name: shuffled(value[name], seed) for name in names}
    return value


@settings(max_examples=400, deadline=None)
@given(model=models, used=usages(), at=instants, batch=st.booleans())
def test_rating_is_exact(model: str, used: dict[str, Any], at: datetime, batch: bool):
    message = reply(model, used)
    rating = rate(message, at=at, batch=batch)
    expected = reference(message, at, batch)
    if expected is None:
        assert rating.status == "unpriced"
        assert rating.reason
        return
    assert rating.cost_usd is not None
    assert Fraction(rating.cost_usd) == expected
    assert sum(Fraction(line.amount_usd) for line in rating.lines) == expected
    for line in rating.lines:
        assert line.quantity > 0
        assert Fraction(line.amount_usd) == line.quantity * Fraction(line.unit_usd)
    assert rating.cost_usd >= 0
    told = {kind.value: n for kind, n in rating.tokens.by_kind().items() if n}
    assert told == {line.kind: line.quantity for line in rating.lines}


@settings(max_examples=150, deadline=None)
@given(model=models, one=usages(), two=usages())
def test_costs_add_up_where_no_prompt_length_changes_the_price(
    model: str, one: dict[str, Any], two: dict[str, Any]
):
    if len(price_book().model(model).tiers_at(NOW)) > 1:
        model = "claude-opus-5-5"

    def plain(*parts: dict[str, Any]) -> Fraction:
        totals = [sum(field(part) for part in parts) for field in FIELDS.values()]
        message = reply(model, usage(*totals))
        cost = rate(message, at=NOW).cost_usd
        assert cost is not None
        return Fraction(cost)

    assert plain(one) + plain(two) == plain(one, two)


@settings(max_examples=200, deadline=None)
@given(
    model=models,
    used=usages(),
    at=instants,
    which=st.integers(0, 4),
    more=st.integers(1, 300_000),
)
def test_using_more_never_costs_less(
    model: str, used: dict[str, Any], at: datetime, which: int, more: int
):
    numbers = [field(used) for field in FIELDS.values()]
    numbers[which] += more
    less, greater = (
        rate(reply(model, used), at=at),
        rate(reply(model, used | usage(*numbers)), at=at),
    )
    if less.cost_usd is not None and greater.cost_usd is not None:
        assert greater.cost_usd > less.cost_usd


@settings(max_examples=300, deadline=None)
@given(message=loose_replies(), at=instants, batch=st.booleans(), seed=st.integers(0, 99))
def test_no_reply_raises_and_the_order_of_its_fields_does_not_matter(
    message: dict[str, Any], at: datetime, batch: bool, seed: int
):
    rating = rate(message, at=at, batch=batch)
    if rating.status == "priced":
        assert rating.cost_usd is not None
        assert rating.cost_usd >= 0
    elif rating.status == "not_billed":
        assert rating.cost_usd == 0
        assert rating.reason
    else:
        assert rating.cost_usd is None
        assert rating.lines == ()
        assert rating.reason
    other = rate(shuffled(message, seed), at=at, batch=batch)
    assert (other.status, other.cost_usd, other.tokens) == (
        rating.status,
        rating.cost_usd,
        rating.tokens,
    )
    kept = rate(evidence(message), at=at, batch=batch)
    assert (kept.status, kept.cost_usd, kept.reason) == (
        rating.status,
        rating.cost_usd,
        rating.reason,
    )


@settings(max_examples=200, deadline=None)
@given(line=json_values | st.fixed_dictionaries({"id": st.text(), "message": loose_replies()}))
def test_no_line_from_outside_raises(line: object):
    answer = rate_line(line)
    assert set(answer) == {"id", "status", "cost_usd", "lines", "reason"}


@settings(max_examples=200, deadline=None)
@given(params=st.dictionaries(st.text(max_size=8), json_values, max_size=5), text=st.text())
def test_no_body_makes_an_estimate_raise(params: dict[str, Any], text: str):
    estimate = estimate_input_tokens(params | {"messages": [{"role": "user", "content": text}]})
    assert 0 <= estimate.low <= estimate.likely <= estimate.high
    assert estimate.high >= len(text.encode("utf-8", "surrogatepass"))


@settings(max_examples=50, deadline=None)
@given(at=instants)
def test_a_price_changes_at_midnight_utc_and_nowhere_else(at: datetime):
    midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
    message = reply("claude-sonnet-5-5", usage(read=1))
    through_the_day = {
        rate(message, at=midnight + step).cost_usd
        for step in (timedelta(0), at - midnight, timedelta(days=1, microseconds=-1))
    }
    assert len(through_the_day) == 1
