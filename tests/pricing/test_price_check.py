"""The book beside genai-prices, which somebody else keeps."""

import sys
from datetime import datetime
from decimal import Decimal

import pytest

from tallystick.pricing import TokenKind
from tallystick.pricing.book import build_book
from tallystick.pricing.check import compare, genai_prices_catalogue

from .replies import NOW, day
from .test_price_book import rows_of, shipped


def test_every_difference_from_genai_prices_has_a_known_reason():
    found = compare(NOW)
    assert [price for price in found if price.reason is None] == []
    reasons = {(price.model, price.mode): price.reason for price in found}
    assert "does not list" in str(reasons["claude-mythos-5", "standard"])
    assert "2026-10-07" in str(reasons["claude-sonnet-5-5", "standard"])


def test_genai_prices_agrees_on_what_is_sold_today():
    found = {(price.model, price.mode) for price in compare(NOW) if price.at == NOW}
    unlisted = {"claude-mythos-5", "claude-mythos-5-1"}
    retired = {
        "claude-opus-4-1",
        "claude-opus-4-0",
        "claude-sonnet-4-0",
        "claude-3-7-sonnet-20250219",
        "claude-3-5-haiku-20241022",
        "claude-3-opus-20240229",
    }
    assert {model for model, _ in found} == unlisted | retired


def test_a_wrong_price_is_found_without_a_reason():
    data = shipped()
    rows_of(data, "claude-opus-5", "output")[0]["usd_per_million"] = "26"
    wrong = [price for price in compare(NOW, book=build_book(data)) if price.reason is None]
    assert {(price.mode, price.ours, price.theirs) for price in wrong} == {
        ("standard", Decimal(26), Decimal(25)),
        ("batch", Decimal(13), Decimal("12.5")),
        ("fast", Decimal(52), Decimal(50)),
    }
    assert {(price.model, price.kind) for price in wrong} == {("claude-opus-5", TokenKind.OUTPUT)}


def test_every_price_is_asked_for_in_every_span_tier_and_mode():
    asked: list[tuple[str, TokenKind, int, datetime, str]] = []

    def know_nothing(model: str, kind: TokenKind, prompt: int, at: datetime, mode: str) -> None:
        asked.append((model, kind, prompt, at, mode))

    found = compare(NOW, catalogue=know_nothing)
    assert len(found) == len(asked)
    assert all(price.theirs is None for price in found)
    haiku = {(prompt, mode) for model, _, prompt, _, mode in asked if model == "claude-haiku-5-5"}
    assert haiku == {
        (1_000, "standard"),
        (101_000, "standard"),
        (1_000, "batch"),
        (101_000, "batch"),
    }
    reads = {at for model, kind, _, at, _ in asked if model == "claude-sonnet-5-5"}
    assert len(reads) == 2
    assert NOW in reads


def test_nothing_is_asked_for_after_the_end_or_before_a_model_is_out():
    models: set[str] = set()

    def listen(model: str, kind: TokenKind, prompt: int, at: datetime, mode: str) -> None:
        assert at <= end
        models.add(model)

    end = day("2026-10-01")
    compare(end, catalogue=listen)
    assert "claude-sonnet-5-5" in models
    assert "claude-fable-5-2" not in models
    end = day("2026-11-09")
    compare(end, catalogue=listen)
    assert "claude-fable-5-2" in models


def test_a_known_reason_ends_with_its_day():
    def know_nothing(model: str, kind: TokenKind, prompt: int, at: datetime, mode: str) -> None:
        return None

    def reasons(on: str) -> set[str | None]:
        found = compare(day(on), catalogue=know_nothing)
        return {
            price.reason
            for price in found
            if (price.model, price.mode) == ("claude-opus-5", "batch")
        }

    assert reasons("2026-10-13") == {"genai-prices has no batch prices before 2026-10-14"}
    assert reasons("2026-10-14") == {None}


def test_comparing_says_what_it_needs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    with pytest.raises(ModuleNotFoundError, match=r"tallystick\[dev\]"):
        genai_prices_catalogue()
