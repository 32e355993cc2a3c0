"""From cost to charge: exact, rounded once, against a reference in fractions."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.contracts import BillLine
from tallystick.plans import CustomerTerms, PlanTerms, charge, highest_charge
from tallystick.pricing import TokenKind

markups = st.decimals(min_value=-1, max_value=1_000, places=6)
discounts = st.decimals(min_value=0, max_value=1, places=6)
kinds = st.sampled_from(list(TokenKind))
amounts = st.decimals(min_value=0, max_value=10_000, places=14)
terms = st.builds(
    PlanTerms,
    model=st.just("pass-through"),
    markup=markups,
    markup_by_kind=st.dictionaries(kinds, markups),
    discount=discounts,
)
own_terms = st.builds(
    CustomerTerms,
    markup=st.none() | markups,
    markup_by_kind=st.dictionaries(kinds, markups),
    discount=st.none() | discounts,
)


def line(kind: str, amount: Decimal) -> BillLine:
    return BillLine(kind=kind, model="m", quantity=1, unit_usd=amount, amount_usd=amount)


lines = st.lists(st.builds(line, kinds, amounts), max_size=8)


def in_nano(bill: list[BillLine], under: PlanTerms) -> Fraction:
    """The exact charge in nano-USD, worked out in fractions."""
    whole = Fraction(0)
    for each in bill:
        markup = under.markup_by_kind.get(TokenKind(each.kind), under.markup)
        whole += Fraction(each.amount_usd) * (1 + Fraction(markup)) * (1 - Fraction(under.discount))
    return whole * 10**9


@given(lines, terms)
def test_a_charge_is_the_exact_sum_rounded_once_half_even(
    bill: list[BillLine], under: PlanTerms
) -> None:
    # Python's own round() of a fraction is half-even and exact.
    assert charge(bill, under).nano_usd == round(in_nano(bill, under))


@given(lines, terms)
def test_a_charge_is_never_negative_and_does_not_depend_on_the_order(
    bill: list[BillLine], under: PlanTerms
) -> None:
    charged = charge(bill, under)
    assert charged.nano_usd >= 0
    assert charge(list(reversed(bill)), under) == charged


@given(lines, terms)
def test_no_reply_is_charged_more_than_its_worst_case(
    bill: list[BillLine], under: PlanTerms
) -> None:
    cost = sum((each.amount_usd for each in bill), Decimal(0))
    assert charge(bill, under).nano_usd <= highest_charge(cost, under).nano_usd


@given(terms, own_terms, kinds)
def test_negotiated_terms_stand_before_the_plan(
    plan: PlanTerms, own: CustomerTerms, kind: TokenKind
) -> None:
    if kind in own.markup_by_kind:
        markup = own.markup_by_kind[kind]
    elif own.markup is not None:
        markup = own.markup
    else:
        markup = plan.markup_by_kind.get(kind, plan.markup)
    discount = plan.discount if own.discount is None else own.discount
    assert plan.negotiated(own).factor(kind) == (1 + markup) * (1 - discount)


@given(terms)
def test_terms_survive_the_ledgers_json(under: PlanTerms) -> None:
    assert PlanTerms.read(under.model_dump(mode="json")) == under


def test_worked_examples() -> None:
    # 1,000 input at $2 a million = $0.002, 100 output at $10 a million = $0.001.
    bill = [line("input", Decimal("0.002")), line("output", Decimal("0.001"))]
    plan = PlanTerms(model="pass-through", markup=Decimal("0.2"))
    # 0.003 x 1.2 = 0.0036
    assert charge(bill, plan).nano_usd == 3_600_000
    # 5 % off: 0.0036 x 0.95 = 0.00342
    assert charge(bill, plan.negotiated(CustomerTerms(discount=Decimal("0.05")))).usd == Decimal(
        "0.00342"
    )
    # Input as the plan, output at cost plus half: 0.0024 + 0.0015 = 0.0039
    kind = CustomerTerms(markup_by_kind={TokenKind.OUTPUT: Decimal("0.5")})
    assert charge(bill, plan.negotiated(kind)).nano_usd == 3_900_000
    # Two lines of 0.4 nano-USD are 0.8 together, which is 1; each on its own would be 0.
    tiny = [line("input", Decimal("0.0000000004"))] * 2
    assert charge(tiny, PlanTerms(model="pass-through")).nano_usd == 1


@pytest.mark.parametrize(
    ("bad", "where"),
    [
        ({"markup": 0.2}, "markup"),
        ({"markup": "0.1234567"}, "markup"),
        ({"markup": "-1.5"}, "markup"),
        ({"markup": "NaN"}, "markup"),
        ({"discount": "1.01"}, "discount"),
        ({"discount": "-0.1"}, "discount"),
        ({"markup_by_kind": {"ouput": "0.3"}}, "markup_by_kind"),
        ({"mark_up": "0.2"}, "mark_up"),
        ({"charge_failed_attempts": True}, "charge_failed_attempts"),
    ],
)
def test_terms_that_could_go_unnoticed_are_refused(bad: dict[str, object], where: str) -> None:
    with pytest.raises(ValueError, match=where):
        PlanTerms.read({"model": "pass-through", **bad})
