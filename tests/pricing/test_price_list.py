"""Every row of the price list, as a reply worked out by hand.

The table below was written from facts on Claude, 'Prices', not from the data of the book: the price
columns are dollars per million tokens (input, output, 5m write, 1h write, read). Every example has
2,000 output tokens, writes of 400 (5m) and 300 (1h), and 10,000 cache reads; `input` is beside it.
"""

from decimal import Decimal

import pytest

from tallystick.pricing import TOKEN_KINDS, price_book, rate

from .replies import day, reply, usage

EXAMPLES = [
    # model, on, input, prices, cost
    # 1,000x8 + 2,000x40 + 400x10 + 300x16 + 10,000x0.20
    #   = 8,000 + 80,000 + 4,000 + 4,800 + 2,000 = 98,800 millionths
    ("claude-fable-5-2", "2026-11-20", 1_000, "8 40 10 16 0.20", "0.0988"),
    ("claude-mythos-5-2", "2026-11-20", 1_000, "8 40 10 16 0.20", "0.0988"),
    # 1,000x10 + 2,000x50 + 400x12.50 + 300x20 + 10,000x0.25
    #   = 10,000 + 100,000 + 5,000 + 6,000 + 2,500 = 123,500
    ("claude-fable-5-1", "2026-11-20", 1_000, "10 50 12.50 20 0.25", "0.1235"),
    ("claude-mythos-5-1", "2026-11-20", 1_000, "10 50 12.50 20 0.25", "0.1235"),
    # the same with reads at 1.00: 121,000 + 10,000 = 131,000
    ("claude-fable-5", "2026-11-20", 1_000, "10 50 12.50 20 1.00", "0.131"),
    ("claude-mythos-5", "2026-11-20", 1_000, "10 50 12.50 20 1.00", "0.131"),
    # 4,000 + 40,000 + 2,000 + 2,400 + 2,000 = 50,400
    ("claude-opus-5-5", "2026-11-20", 1_000, "4 20 5 8 0.20", "0.0504"),
    # 5,000 + 50,000 + 2,500 + 3,000 + 5,000 = 65,500
    ("claude-opus-5", "2026-11-20", 1_000, "5 25 6.25 10 0.50", "0.0655"),
    ("claude-opus-4-8", "2026-11-20", 1_000, "5 25 6.25 10 0.50", "0.0655"),
    ("claude-opus-4-7", "2026-11-20", 1_000, "5 25 6.25 10 0.50", "0.0655"),
    ("claude-opus-4-6", "2026-11-20", 1_000, "5 25 6.25 10 0.50", "0.0655"),
    ("claude-opus-4-6", "2026-03-12", 1_000, "5 25 6.25 10 0.50", "0.0655"),
    # over 200,000 until 2026-03-13: 201,000x10 + 2,000x37.50 + 400x12.50 + 300x20 + 10,000x1
    #   = 2,010,000 + 75,000 + 5,000 + 6,000 + 10,000 = 2,106,000
    ("claude-opus-4-6", "2026-03-12T23:59", 201_000, "10 37.50 12.50 20 1.00", "2.106"),
    # the same request a minute later: 1,005,000 + 50,000 + 2,500 + 3,000 + 5,000 = 1,065,500
    ("claude-opus-4-6", "2026-03-13", 201_000, "5 25 6.25 10 0.50", "1.0655"),
    ("claude-opus-4-5", "2026-11-20", 1_000, "5 25 6.25 10 0.50", "0.0655"),
    ("claude-opus-4-5-20251101", "2026-11-20", 1_000, "5 25 6.25 10 0.50", "0.0655"),
    # 15,000 + 150,000 + 7,500 + 9,000 + 15,000 = 196,500
    ("claude-opus-4-1-20250805", "2026-06-01", 1_000, "15 75 18.75 30 1.50", "0.1965"),
    ("claude-opus-4-20250514", "2026-06-01", 1_000, "15 75 18.75 30 1.50", "0.1965"),
    ("claude-opus-4-0", "2026-06-01", 1_000, "15 75 18.75 30 1.50", "0.1965"),
    ("claude-3-opus-20240229", "2025-06-01", 1_000, "15 75 18.75 30 1.50", "0.1965"),
    # 2,000 + 20,000 + 1,000 + 1,200 + 1,000 = 25,200
    ("claude-sonnet-5-5", "2026-10-07", 1_000, "2 10 2.50 4 0.10", "0.0252"),
    # reads at 0.20 before 2026-10-07: 24,200 + 2,000 = 26,200
    ("claude-sonnet-5-5", "2026-10-06T23:59", 1_000, "2 10 2.50 4 0.20", "0.0262"),
    ("claude-sonnet-5", "2026-11-20", 1_000, "2 10 2.50 4 0.20", "0.0262"),
    # 3,000 + 30,000 + 1,500 + 1,800 + 3,000 = 39,300
    ("claude-sonnet-4-6", "2026-11-20", 1_000, "3 15 3.75 6 0.30", "0.0393"),
    # 201,000x6 + 2,000x22.50 + 400x7.50 + 300x12 + 10,000x0.60
    #   = 1,206,000 + 45,000 + 3,000 + 3,600 + 6,000 = 1,263,600
    ("claude-sonnet-4-6", "2026-03-12", 201_000, "6 22.50 7.50 12 0.60", "1.2636"),
    # 603,000 + 30,000 + 1,500 + 1,800 + 3,000 = 639,300
    ("claude-sonnet-4-6", "2026-03-13", 201_000, "3 15 3.75 6 0.30", "0.6393"),
    ("claude-sonnet-4-5", "2026-11-20", 1_000, "3 15 3.75 6 0.30", "0.0393"),
    ("claude-sonnet-4-5-20250929", "2026-11-20", 1_000, "3 15 3.75 6 0.30", "0.0393"),
    # the 1M beta, until 2026-04-30
    ("claude-sonnet-4-5", "2026-04-29", 201_000, "6 22.50 7.50 12 0.60", "1.2636"),
    ("claude-sonnet-4-20250514", "2026-06-01", 1_000, "3 15 3.75 6 0.30", "0.0393"),
    ("claude-sonnet-4-0", "2026-06-01", 1_000, "3 15 3.75 6 0.30", "0.0393"),
    ("claude-3-7-sonnet-20250219", "2026-01-01", 1_000, "3 15 3.75 6 0.30", "0.0393"),
    ("claude-3-7-sonnet-latest", "2026-01-01", 1_000, "3 15 3.75 6 0.30", "0.0393"),
    # 100 + 1,000 + 50 + 60 + 100 = 1,310
    ("claude-haiku-5-5", "2026-11-20", 1_000, "0.10 0.50 0.125 0.20 0.01", "0.00131"),
    # over 100,000: 101,000x0.50 + 2,000x2.50 + 400x0.625 + 300x1 + 10,000x0.05
    #   = 50,500 + 5,000 + 250 + 300 + 500 = 56,550
    ("claude-haiku-5-5", "2026-11-20", 101_000, "0.50 2.50 0.625 1.00 0.05", "0.05655"),
    # 1,000 + 10,000 + 500 + 600 + 1,000 = 13,100
    ("claude-haiku-4-5", "2026-11-20", 1_000, "1 5 1.25 2 0.10", "0.0131"),
    ("claude-haiku-4-5-20251001", "2026-11-20", 1_000, "1 5 1.25 2 0.10", "0.0131"),
    # 800 + 8,000 + 400 + 480 + 800 = 10,480
    ("claude-3-5-haiku-20241022", "2026-01-01", 1_000, "0.80 4 1 1.60 0.08", "0.01048"),
    ("claude-3-5-haiku-latest", "2026-01-01", 1_000, "0.80 4 1 1.60 0.08", "0.01048"),
]


@pytest.mark.parametrize(("model", "on", "input_tokens", "prices", "cost"), EXAMPLES)
def test_a_reply_costs_what_was_worked_out_by_hand(
    model: str, on: str, input_tokens: int, prices: str, cost: str
):
    used = usage(input_tokens, 2_000, 400, 300, 10_000)
    rating = rate(reply(model, used), at=day(on))
    assert rating.status == "priced"
    assert [line.kind for line in rating.lines] == [str(kind) for kind in TOKEN_KINDS]
    assert [line.quantity for line in rating.lines] == [input_tokens, 2_000, 400, 300, 10_000]
    assert [line.unit_usd * 1_000_000 for line in rating.lines] == [
        Decimal(price) for price in prices.split()
    ]
    assert rating.cost_usd == Decimal(cost)
    assert sum(line.amount_usd for line in rating.lines) == rating.cost_usd


def test_the_examples_use_every_row_of_the_price_list():
    used = set()
    for model, on, input_tokens, *_ in EXAMPLES:
        tier = price_book().model(model).tier(day(on), input_tokens + 10_700)
        used |= {
            row
            for row in price_book().prices(model, day(on))
            if row.prompt_over == tier.prompt_over
        }
    assert set(price_book().rows) - used == set()


def test_the_examples_use_every_model_and_alias():
    assert {model for model, *_ in EXAMPLES} == set(price_book().models) - {"claude-opus-4-1"}
