"""The document: its lines add up, it says everything in words, and the customer's copy is less."""

from decimal import Decimal
from typing import Any

import pytest

from tallystick.insight import History
from tallystick.plans.billed import Billed, Booked
from tallystick.plans.settlement import PeriodTerms
from tallystick.plans.statement import LostAttempts, Movement, Statement, WalletUse
from tallystick.plans.writing import Beside, Heading, write_statement
from tallystick.pricing import TokenKind
from tests.plans.billing import DAY, START, UNITS, billed, hybrid, of, period, plan, sold

LOST = LostAttempts(failed=2, unknown=1, estimated_cost_usd=Decimal("0.25"))


def written(terms: PeriodTerms, usage: Billed, **beside: Any) -> Statement:
    return write_statement(Heading("acme", "Acme", 3), terms, usage, Beside(**beside))


def test_lines_and_their_rounding_are_what_the_ledger_has_charged() -> None:
    terms = plan(markup="0.2", discount="0.033333")  # charges are cost x 1.1600004
    usage = billed(
        sold(terms, "input", 7),  # 0.000014 x 1.1600004 = 16240.0056 nano -> 16240
        sold(terms, "output", 1),  # 0.00001 x 1.1600004 = 11600.004 nano -> 11600
        sold(terms, "output", 1, model="claude-opus-5-5", unit_usd=Decimal("0.000025")),  # 29000.01
        sold(terms, "input", 3, "late_usage"),  # 6960.0024 -> 6960
    )
    statement = written(period(terms), usage)
    section = statement.sections["usage"]
    assert [(line.model, line.kind, line.quantity, line.charge_usd) for line in section.lines] == [
        ("claude-opus-5-5", "output", 1, Decimal("0.00002900001")),
        ("claude-sonnet-5-5", "input", 7, Decimal("0.0000162400056")),
        ("claude-sonnet-5-5", "output", 1, Decimal("0.000011600004")),
    ]
    # 56840.0196 nano in lines, 56840 in the ledger.
    assert section.rounding_usd == Decimal("-0.0000000000196")
    assert section.charge_usd == Decimal("0.00005684")
    assert list(statement.sections) == ["usage", "late_usage"]
    assert statement.usage_usd == Decimal("0.0000638")


def test_a_charge_that_its_lines_do_not_explain_stops_the_statement() -> None:
    terms = plan()
    line = sold(terms, "input", 500_000)
    for cost, nano in ((Decimal(1), 1_000_000_002), (Decimal(2), 1_000_000_000)):
        usage = Billed((line,), (Booked("usage", terms, 1, cost, nano),))
        with pytest.raises(
            ValueError, match="usage: the bill lines of 1 records come to a cost of"
        ):
            written(period(terms), usage)


def test_savings_are_what_the_customer_would_have_paid_more() -> None:
    terms = plan(markup="0.5", markup_by_kind={"cache_read": "1"})
    usage = billed(
        # As input $2 x 1.5 = $3; as cache reads $0.10 x 2 = $0.20.
        sold(terms, "cache_read", 1_000_000),
        # Written for $2.50 x 1.5 = $3.75 instead of $3.
        sold(terms, "cache_write_5m", 1_000_000),
        # In a batch, at half of everything: reads save (1 - 0.05) x ..: input $1 x 1.5 = $1.50
        # against $0.05 x 2 = $0.10; without the batch it would have been $0.20.
        sold(terms, "cache_read", 1_000_000, batch=True, unit_usd=Decimal("0.00000005")),
        # Without the batch $10 x 1.5 instead of half of it.
        sold(terms, "output", 1_000_000, batch=True, unit_usd=Decimal("0.000005")),
        # Searches are never discounted.
        sold(terms, "web_search", 10, batch=True),
        # A unit price that the book does not know: nothing is claimed.
        sold(terms, "cache_read", 1_000_000, unit_usd=Decimal("0.00000077")),
    )
    saved = written(period(terms), usage).savings
    # 2.80 - 0.75 + 1.40; 0.10 + 7.50
    assert (saved.cache_usd, saved.batch_usd) == (Decimal("3.45"), Decimal("7.6"))


def test_the_customers_copy_has_nothing_of_our_side() -> None:
    terms = plan(markup="0.25")
    statement = written(period(terms), billed(sold(terms, "input", 1_000_000)), lost=LOST)
    operator = statement.operator
    assert operator is not None
    (cost,) = operator.costs
    assert (cost.kind, cost.cost_usd) == (TokenKind.INPUT, 2)
    # Charged $2.50, spent $2 and perhaps $0.25 more.
    assert (operator.earned_usd, operator.margin_usd) == (Decimal("2.5"), Decimal("0.25"))
    copy = statement.for_customer()
    assert copy == Statement.model_validate({**statement.model_dump(), "operator": None})
    said = copy.model_dump_json()
    assert "cost_usd" not in said.replace("lost_cache_usd", "")
    assert "margin" not in said


def test_the_margin_of_a_hybrid_plan_counts_the_fee_of_its_own_period() -> None:
    # A fee of 30 was collected in advance, of which 10 stays; the next one, 90, is not earned yet.
    terms = hybrid("30", allowance={"usd": "30"})
    ended = period(terms, end=START + 10 * DAY)
    operator = written(ended, billed(of("12", terms))).operator
    assert operator is not None
    # 30 - 20 + overage of 2, at a cost of 12.
    assert (operator.earned_usd, operator.margin_usd) == (12, 0)
    following = written(period(terms, following=hybrid("90")), billed(of("12", terms))).operator
    assert following is not None
    assert following.earned_usd == 30


def test_what_an_earlier_meter_got_wrong_was_earned_before_and_is_said() -> None:
    terms = plan()
    statement = written(period(terms), billed(of("3", terms), corrected="1.5"))
    assert statement.operator is not None
    assert statement.operator.earned_usd == 3
    assert statement.usage_usd == 3
    assert statement.due_usd == Decimal("4.5")
    assert "Too little was collected for earlier usage; $1.50 is made up for." in statement.summary
    back = written(period(terms), billed(corrected="-1.5")).summary
    assert back[1:] == (
        "Too much was collected for earlier usage; $1.50 comes back.",
        "$1.50 is given back.",
    )


def test_credit_that_was_given_away_earns_nothing() -> None:
    terms = plan("prepaid")

    def moved(kind: str, grant_kind: str | None, usd: str) -> Movement:
        grant = grant_kind and f"{grant_kind}:1"
        return Movement(
            kind=kind,
            grant=grant,
            grant_kind=grant_kind,
            count=1,
            first_at=START,
            last_at=START,
            amount_usd=Decimal(usd),
        )

    wallet = WalletUse(
        opening_usd=Decimal(0),
        movements=(
            moved("granted", "paid", "50"),
            moved("granted", "promotional", "5"),
            moved("usage", "promotional", "-5"),
            moved("usage", "paid", "-7"),
            moved("adjustment", "paid", "1"),
        ),
        closing_usd=Decimal(44),
    )
    operator = written(period(terms), billed(of("12", terms)), wallet=wallet).operator
    assert operator is not None
    assert operator.earned_usd == 6


def test_a_statement_survives_the_ledgers_json_with_money_as_text() -> None:
    terms = hybrid("30", allowance={"tokens": {"input": 5}}, commitment_usd="9")
    statement = written(period(terms, following=terms), billed(of("0.123456789", terms)), lost=LOST)
    document = statement.model_dump(mode="json")
    assert Statement.model_validate(document) == statement
    assert document["due_usd"] == "39"
    assert document["sections"]["usage"]["lines"][0]["charge_usd"] == "0.123456789"


def test_a_statement_says_in_plain_words_what_it_comes_to() -> None:
    terms = hybrid("99", markup="0.25", allowance={"usd": "10"}, commitment_usd="20")
    usage = billed(
        sold(terms, "input", 4_000_000),  # $8 x 1.25 = $10
        sold(terms, "output", 250_000),  # $2.50 x 1.25 = $3.125
        sold(terms, "cache_read", 1_000_000, "late_usage"),  # $0.125, saved $2.375
    )
    history = History(
        turns=4,
        prompt_tokens=1_000,
        resent_tokens=500,
        charge_usd=Decimal(1),
        resent_usd=Decimal("0.75"),
        lost_cache_usd=Decimal(0),
    )
    statement = written(period(terms, following=terms), usage, history=history)
    assert statement.summary == (
        "2 requests from 2026-11-01 to 2026-12-01 came to $13.12: the prompts were about 16,000 "
        "pages of text and the answers about 1,000 pages of text (250 tokens a page).",
        "Usage of earlier periods that was recorded later adds $0.12.",
        "Caching saved $2.38.",
        "50 % of the prompts in conversations (about 2 pages of text) was history sent again, for "
        "$0.75.",
        "The plan includes $10.00 of usage, of which none is left.",
        "Usage beyond what the plan includes came to $3.25.",
        "Usage was agreed to come to at least $20.00; the missing $16.75 is added.",
        "The base fee of the next period is $99.00.",
        "To pay: $119.00.",
    )


def test_a_period_without_usage_says_so() -> None:
    terms = plan("prepaid")
    wallet = WalletUse(opening_usd=Decimal(7), movements=(), closing_usd=Decimal(7))
    assert written(period(terms), billed(), wallet=wallet).summary == (
        "Nothing was used from 2026-11-01 to 2026-12-01.",
        "The balance is $7.00.",
        "Nothing is to be paid.",
    )


def test_every_unit_price_of_these_tests_is_one_of_the_books() -> None:
    # Else savings would be tested on prices that are never looked up.
    terms = plan()
    lines = [sold(terms, kind, 1_000_000) for kind in UNITS if kind.startswith("cache")]
    for line in lines:
        saved = written(period(terms), billed(line)).savings.cache_usd
        assert saved == 2 - line.cost_usd
