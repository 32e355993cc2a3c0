"""What the book refuses to load, what it refuses to price, and what it covers."""

import copy
import tomllib
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from importlib.resources import files
from typing import Any, get_args

import pytest
from anthropic.resources.messages.messages import DEPRECATED_MODELS
from anthropic.types.model import Model as KnownModel

from tallystick.pricing import BookError, NoPriceError, TokenKind, price_book, rate
from tallystick.pricing.book import build_book

from .replies import NOW, day, reply, usage

Data = dict[str, Any]


def shipped() -> Data:
    merged: Data = {}
    for name in ("models.toml", "prices.toml", "rules.toml"):
        merged |= tomllib.loads((files("tallystick.pricing") / "data" / name).read_text("utf-8"))
    return merged


def rows_of(data: Data, model: str, kind: str = "input") -> list[Data]:
    return [row for row in data["prices"] if row["model"] == model and row["kind"] == kind]


def _overlap(data: Data) -> None:
    data["prices"].append(copy.deepcopy(rows_of(data, "claude-opus-5")[0]))


def _gap_in_time(data: Data) -> None:
    rows_of(data, "claude-sonnet-5-5", "cache_read")[1]["valid_from"] = date(2026, 10, 8)


def _missing_kind(data: Data) -> None:
    data["prices"].remove(rows_of(data, "claude-opus-5", "cache_write_1h")[0])


def _missing_kind_in_a_tier(data: Data) -> None:
    data["prices"].remove(rows_of(data, "claude-haiku-5-5", "output")[1])


def _ends_early(data: Data) -> None:
    rows_of(data, "claude-opus-5")[0]["valid_until"] = date(2026, 1, 1)


def _ends_before_it_starts(data: Data) -> None:
    rows_of(data, "claude-opus-5")[0]["valid_until"] = date(2025, 1, 1)


def _float(data: Data) -> None:
    rows_of(data, "claude-opus-5")[0]["usd_per_million"] = 5.0


def _whole_number(data: Data) -> None:
    rows_of(data, "claude-opus-5")[0]["usd_per_million"] = 5


def _float_multiplier(data: Data) -> None:
    data["batch"]["multiplier"] = 0.5


def _not_a_number(data: Data) -> None:
    rows_of(data, "claude-opus-5")[0]["usd_per_million"] = "five"


def _nan(data: Data) -> None:
    rows_of(data, "claude-opus-5")[0]["usd_per_million"] = "NaN"


def _free(data: Data) -> None:
    rows_of(data, "claude-opus-5")[0]["usd_per_million"] = "0"


def _no_source(data: Data) -> None:
    del rows_of(data, "claude-opus-5")[0]["source"]


def _unknown_source(data: Data) -> None:
    rows_of(data, "claude-opus-5")[0]["source"] = "hearsay"


def _rule_without_source(data: Data) -> None:
    data["web_search"]["source"] = "hearsay"


def _float_threshold(data: Data) -> None:
    rows_of(data, "claude-haiku-5-5")[1]["prompt_over"] = 1e5


def _negative_threshold(data: Data) -> None:
    data["no_price"][0]["prompt_over"] = -1


def _unknown_kind(data: Data) -> None:
    rows_of(data, "claude-opus-5")[0]["kind"] = "thinking"


def _a_fee_as_a_token(data: Data) -> None:
    rows_of(data, "claude-opus-5")[0]["kind"] = "web_search"


def _unlisted_model(data: Data) -> None:
    rows_of(data, "claude-opus-5")[0]["model"] = "claude-opus-6"


def _model_without_prices(data: Data) -> None:
    data["models"].append({"id": "claude-opus-6", "us_inference": True})


def _alias_twice(data: Data) -> None:
    data["models"][0]["aliases"] = ["claude-opus-5"]


def _priced_and_refused(data: Data) -> None:
    data["unpriced"][0]["ids"].append("claude-opus-5")


def _fast_overlap(data: Data) -> None:
    data["fast"].append(
        {
            "model": "claude-opus-4-8",
            "multiplier": "3",
            "valid_from": date(2026, 11, 1),
            "source": "fast_mode",
        }
    )


def _fast_twice_for_good(data: Data) -> None:
    data["fast"].append(
        {
            "model": "claude-opus-5",
            "multiplier": "3",
            "valid_from": date(2026, 11, 1),
            "source": "fast_mode",
        }
    )


def _price_and_no_price(data: Data) -> None:
    data["no_price"].append(
        {
            "model": "claude-haiku-5-5",
            "prompt_over": 100_000,
            "valid_from": date(2026, 1, 1),
            "reason": "?",
        }
    )


@pytest.mark.parametrize(
    ("spoil", "names"),
    [
        (_overlap, "claude-opus-5, input: two prices overlap on 2025-01-01"),
        (_gap_in_time, "claude-sonnet-5-5, cache_read: no price on 2026-10-07"),
        (_missing_kind, "claude-opus-5, cache_write_1h: no price on 2025-01-01"),
        (_missing_kind_in_a_tier, "claude-haiku-5-5, output: no price on 2025-01-01, over 100000"),
        (_ends_early, "claude-opus-5, input: no price on 2026-01-01"),
        (_ends_before_it_starts, "ends before it starts"),
        (_float, "never float"),
        (_whole_number, "never int"),
        (_float_multiplier, "never float"),
        (_not_a_number, "five"),
        (_nan, "NaN"),
        (_free, "more than nothing"),
        (_no_source, "source"),
        (_unknown_source, "hearsay"),
        (_rule_without_source, "web_search has no known source"),
        (_float_threshold, "prompt_over is a whole number"),
        (_negative_threshold, "prompt_over is a whole number"),
        (_unknown_kind, "thinking"),
        (_a_fee_as_a_token, "not a kind of token"),
        (_unlisted_model, "claude-opus-6"),
        (_model_without_prices, "claude-opus-6 is listed without a price"),
        (_alias_twice, "claude-opus-5 is listed twice"),
        (_priced_and_refused, "claude-opus-5 is listed both"),
        (_fast_overlap, "claude-opus-4-8: two fast prices overlap"),
        (_fast_twice_for_good, "claude-opus-5: two fast prices overlap"),
        (_price_and_no_price, "claude-haiku-5-5: prompts over 100000"),
    ],
)
def test_a_wrong_book_does_not_load(spoil: Callable[[Data], None], names: str):
    data = shipped()
    spoil(data)
    with pytest.raises(BookError, match=names):
        build_book(data)


def test_the_shipped_data_makes_the_shipped_book():
    assert build_book(shipped()) == price_book()
    assert price_book() is price_book()
    assert price_book().version == "2026-11-21"


def test_every_model_the_sdk_knows_is_priced_or_refused_with_a_reason():
    named, _ = get_args(KnownModel)
    for model in {*get_args(named), *DEPRECATED_MODELS}:
        reason = price_book().why_unpriced(model, NOW)
        assert reason is None or reason.startswith(f"{model} is not priced: ")


def test_a_disputed_price_is_refused():
    reason = price_book().why_unpriced("claude-mythos-preview", NOW)
    assert reason is not None
    assert "disputed" in reason


def test_an_unknown_model_is_not_known():
    assert not price_book().knows("claude-opus-99", NOW)
    assert price_book().knows("claude-opus-5", NOW)
    with pytest.raises(NoPriceError, match="does not know the model 'claude-opus-99'"):
        price_book().prices("claude-opus-99", NOW)


def test_a_model_has_no_price_before_it_exists():
    book = price_book()
    released = day("2026-11-09")
    assert book.knows("claude-fable-5-2", released)
    assert book.why_unpriced("claude-fable-5-2", released - timedelta(microseconds=1)) == (
        "claude-fable-5-2 has no price before 2026-11-09"
    )
    with pytest.raises(NoPriceError, match="before 2026-11-09"):
        book.prices("claude-fable-5-2", day("2026-11-08"))


def test_the_rows_in_force_are_those_of_the_day():
    def read_price(on: str) -> list[Decimal]:
        rows = price_book().prices("claude-sonnet-5-5", day(on))
        assert {row.kind for row in rows} == set(TokenKind) - {TokenKind.WEB_SEARCH}
        return [row.usd_per_million for row in rows if row.kind is TokenKind.CACHE_READ]

    assert read_price("2026-10-06") == [Decimal("0.20")]
    assert read_price("2026-10-07") == [Decimal("0.10")]


def test_an_alias_has_the_rows_of_its_model():
    book = price_book()
    assert book.prices("claude-opus-4-5-20251101", NOW) == book.prices("claude-opus-4-5", NOW)


def test_every_row_names_the_address_it_was_taken_from():
    assert all(row.source.startswith("https://") for row in price_book().rows)


@pytest.mark.parametrize(
    ("model", "on", "why"),
    [
        ("claude-sonnet-4-5", "2026-04-30", "1M beta ended"),
        ("claude-sonnet-4-0", "2026-01-01", "sources disagree"),
    ],
)
def test_a_prompt_without_an_established_price_is_not_priced(model: str, on: str, why: str):
    at = day(on)
    assert rate(reply(model, usage(200_000, 1)), at=at).status == "priced"
    rating = rate(reply(model, usage(200_001, 1)), at=at)
    assert rating.status == "unpriced"
    assert why in rating.reason
