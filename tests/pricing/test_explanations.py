"""What a customer is told, and what caching and batches saved, worked out by hand."""

from decimal import Decimal
from typing import Any

import pytest

from tallystick.pricing import batch_savings, cache_savings, explain, pages, price_book, rate
from tallystick.pricing.book import build_book
from tallystick.pricing.explain import dollars

from .replies import NOW, day, reply, usage
from .test_price_book import rows_of, shipped

OPUS = "claude-opus-5"


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (0, "empty"),
        (1, "less than a page of text"),
        (249, "less than a page of text"),
        (250, "about 1 page of text"),
        (374, "about 1 page of text"),
        (375, "about 2 pages of text"),
        (50_000, "about 200 pages of text"),
        (1_000_000, "about 4,000 pages of text"),
    ],
)
def test_lengths_are_told_in_pages_of_250_tokens(tokens: int, said: str):
    assert pages(tokens) == said


@pytest.mark.parametrize(
    ("amount", "said"),
    [
        ("0", "$0"),
        ("0.000123456", "$0.00012"),
        ("0.0449", "$0.045"),
        ("0.5", "$0.50"),
        ("-0.0449", "-$0.045"),
        ("-19.666634", "-$19.67"),
        ("1", "$1.00"),
        ("1234.565", "$1,234.56"),
        ("1234.575", "$1,234.58"),
    ],
)
def test_money_is_rounded_for_reading(amount: str, said: str):
    assert dollars(Decimal(amount)) == said


def test_a_bill_explains_itself():
    # 50,000x5 = 250,000; 1,000x25 = 25,000: the answer is 25 of 275, 9 %
    assert explain(rate(reply(OPUS, usage(50_000, 1_000)), at=NOW)) == (
        "The prompt was about 200 pages of text and the answer about 4 pages of text "
        "(250 tokens a page). Longer responses cost more: the answer made up 9 % of the price."
    )


def test_savings_are_told_in_money():
    # reads: 100,000x(5 - 0.50) x 0.5 = 225,000; batch: half of 100,000x0.50 + 1,000x25
    used = usage(0, 1_000, read=100_000, server_tool_use={"web_search_requests": 2})
    text = explain(rate(reply(OPUS, used, stop_reason="max_tokens"), at=NOW, batch=True))
    assert "Caching saved $0.22." in text
    assert "The batch price saved $0.038." in text
    assert "2 web searches cost $0.02." in text
    assert "stopped at a length limit" in text


def test_one_search_is_one_search():
    used = usage(1, 0, server_tool_use={"web_search_requests": 1})
    assert "1 web search cost $0.01." in explain(rate(reply(OPUS, used), at=NOW))


def test_a_first_write_to_the_cache_is_told_as_what_it_is():
    # 100,000x(6.25 - 5) = 125,000
    text = explain(rate(reply(OPUS, usage(write_5m=100_000)), at=NOW))
    assert "Keeping the prompt in the cache cost $0.12 more" in text


def test_an_answer_without_words_has_no_share():
    assert "Longer" not in explain(rate(reply(OPUS, usage(1, 0)), at=NOW))
    assert "Longer" not in explain(rate(reply(OPUS, usage()), at=NOW))


def test_what_is_not_billed_says_why():
    refused = reply(OPUS, usage(9, 1), content=[], stop_reason="refusal")
    assert explain(rate(refused, at=NOW)) == (
        "Not billed: Claude refused before any output, which is not billed."
    )
    unknown = reply("claude-opus-99", usage(9, 1))
    assert explain(rate(unknown, at=NOW)) == (
        "Not priced yet: the price book does not know the model 'claude-opus-99'."
    )
    assert explain(rate({}, at=NOW)).startswith("Not priced yet: the reply was cut off")


@pytest.mark.parametrize(
    ("model", "on", "used", "expected"),
    [
        # 10,000x(5 - 0.50) - 1,000x(6.25 - 5) - 1,000x(10 - 5) = 45,000 - 1,250 - 5,000 = 38,750
        (OPUS, "2026-11-20", usage(7, 7, 1_000, 1_000, 10_000), "0.03875"),
        # reads differ by model: 10,000x(4 - 0.20) and 10,000x(10 - 0.25)
        ("claude-opus-5-5", "2026-11-20", usage(read=10_000), "0.038"),
        ("claude-fable-5-1", "2026-11-20", usage(read=10_000), "0.0975"),
        # and by day: 10,000x(2 - 0.20) and 10,000x(2 - 0.10)
        ("claude-sonnet-5-5", "2026-10-06", usage(read=10_000), "0.018"),
        ("claude-sonnet-5-5", "2026-10-07", usage(read=10_000), "0.019"),
        # above the cliff: 100,001x(0.50 - 0.05)
        ("claude-haiku-5-5", "2026-11-20", usage(read=100_001), "0.04500045"),
        # in the US: 10,000x(5 - 0.50)x1.1
        (OPUS, "2026-11-20", usage(read=10_000, inference_geo="us"), "0.0495"),
        # beside a length without a price: 10,000x(3 - 0.30)
        ("claude-sonnet-4-5", "2026-11-20", usage(read=10_000), "0.027"),
        (OPUS, "2026-11-20", usage(10, 10), "0"),
    ],
)
def test_cache_savings_are_measured_against_the_input_price(
    model: str, on: str, used: dict[str, Any], expected: str
):
    assert cache_savings(rate(reply(model, used), at=day(on))) == Decimal(expected)


def test_batch_savings_are_the_other_half_of_every_token_and_of_no_fee():
    used = usage(1_000, 1_000, server_tool_use={"web_search_requests": 5})
    # (1,000x5 + 1,000x25) / 2 = 15,000
    assert batch_savings(rate(reply(OPUS, used), at=NOW, batch=True)) == Decimal("0.015")
    assert batch_savings(rate(reply(OPUS, used), at=NOW)) == 0


def test_savings_are_not_told_by_a_book_that_did_not_rate():
    data = shipped()
    rows_of(data, OPUS, "cache_read")[0]["usd_per_million"] = "0.40"
    rating = rate(reply(OPUS, usage(read=10)), at=NOW, book=build_book(data | {"version": "other"}))
    with pytest.raises(ValueError, match="book 2026-11-21 did not rate this reply, other did"):
        cache_savings(rating, book=price_book())


def test_savings_skip_lengths_without_a_price():
    data = shipped()
    rows_of(data, "claude-sonnet-4-5", "cache_read")[0]["usd_per_million"] = "0.40"
    rating = rate(reply("claude-sonnet-4-5", usage(read=10)), at=NOW, book=build_book(data))
    with pytest.raises(ValueError, match="did not rate"):
        cache_savings(rating)
