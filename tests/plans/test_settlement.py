"""What a period comes to, worked out by hand for each model, and what holds for any period."""

import math
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.plans import PlanTerms
from tallystick.plans.cents import in_cents
from tallystick.plans.settlement import PeriodTerms, Settlement, settle
from tallystick.pricing import TokenKind
from tests.plans.billing import DAY, END, START, billed, hybrid, of, period, plan, sold, volume


def shown(settlement: Settlement) -> list[tuple[str, str, str, int]]:
    """What each line collects: kind, collector, dollars, cents."""
    return [
        (line.kind, line.collected_by, f"{line.amount_usd.normalize():f}", line.amount_cents)
        for line in settlement.lines
    ]


def due(settlement: Settlement) -> tuple[str, int, str]:
    exact, remainder = settlement.due_usd.normalize(), settlement.remainder_usd.normalize()
    return f"{exact:f}", settlement.due_cents, f"{remainder:f}"


# --- Each model -----------------------------------------------------------------------------------
def test_pass_through_collects_the_metered_line_first_and_the_rest_as_items() -> None:
    terms = plan(markup="0.2", tiers=volume(("10", "1"), (None, "0.9")), commitment_usd="20")
    usage = billed(
        sold(terms, "input", 1_000_000),  # $2 x 1.2 = $2.40
        sold(terms, "output", 500_123),  # $5.00123 x 1.2 = $6.001476
        sold(terms, "output", 100_000, "late_usage"),  # $1 x 1.2 = $1.20
        sold(terms, "input", -1_000, "adjustments"),  # -$0.002 x 1.2 = -$0.0024
        sold(terms, "web_search", 100, unit_usd=Decimal("0.01")),  # $1 x 1.2 = $1.20
        withdrawn="0.5",
    )
    # On time $9.601476, of which $0.50 never reached Stripe: metered $9.101476 -> 910 cents.
    # So far 9.601476 -> 960: 50. So far 10.801476 -> 1080: 120. So far 10.799076 -> 1080: 0.
    # All of $10.799076 reaches over $10, so it is 0.9 of it: 9.7191684, 1.0799076 less;
    # so far 9.7191684 -> 972: -108. That is $10.2808316 short of $20; so far 20 -> 2000: 1028.
    assert shown(settle(period(terms, following=terms), usage)) == [
        ("usage", "metered", "9.101476", 910),
        ("unmetered_usage", "item", "0.5", 50),
        ("late_usage", "item", "1.2", 120),
        ("adjustments", "item", "-0.0024", 0),
        ("tiers", "item", "-1.0799076", -108),
        ("commitment", "item", "10.2808316", 1028),
    ]


def test_a_metered_line_of_nothing_is_still_there_as_it_is_at_stripe() -> None:
    terms = plan()
    assert shown(settle(period(terms, following=terms), billed())) == [("usage", "metered", "0", 0)]


def test_hybrid_collects_the_next_fee_and_what_its_allowance_does_not_cover() -> None:
    terms = hybrid(
        "99",
        allowance={"usd": "100"},
        tiers=volume(("500", "1"), ("2000", "0.95"), (None, "0.9"), mode="graduated"),
    )
    # $1,234.56789 - $100 = $1,134.56789 overage -> 113457 cents.
    # 500 + 634.56789 x 0.95 = 500 + 602.8394955 = 1102.8394955: 31.7283945 less;
    # so far 1102.8394955 -> 110284: -3173. Then $99.
    settlement = settle(period(terms, following=terms), billed(of("1234.56789", terms)))
    assert shown(settlement) == [
        ("overage", "item", "1134.56789", 113457),
        ("tiers", "item", "-31.7283945", -3173),
        ("base_fee", "subscription", "99", 9900),
    ]
    # 1102.8394955 + 99 = 1201.8394955; 120184 cents are 0.0005045 more.
    assert due(settlement) == ("1201.8394955", 120184, "-0.0005045")
    assert settlement.allowance is not None
    assert settlement.allowance.left_usd == 0


def test_usage_inside_the_allowance_leaves_the_fee_alone() -> None:
    terms = hybrid("99", allowance={"usd": "100"})
    settlement = settle(period(terms, following=terms), billed(of("40.5", terms)))
    assert shown(settlement) == [("base_fee", "subscription", "99", 9900)]
    assert settlement.allowance is not None
    assert settlement.allowance.left_usd == Decimal("59.5")


def test_prepaid_collects_nothing_since_the_wallet_has_paid() -> None:
    terms = plan("prepaid")
    usage = billed(
        of("12.345", terms), of("1", terms, "late_usage"), of("-2", terms, "adjustments")
    )
    settlement = settle(period(terms, following=terms), usage)
    # 12.345 + 1 - 2
    assert shown(settlement) == [("credits", "wallet", "11.345", 0)]
    assert due(settlement) == ("0", 0, "0")


def test_what_an_earlier_meter_got_wrong_is_collected_and_is_no_charge() -> None:
    metered = plan(tiers=volume((None, "0.5")), commitment_usd="5")
    usage = billed(of("8", metered), corrected="1.239999999")
    # Half of $8 is $4, which is $1 short of $5, whatever else is collected.
    assert shown(settle(period(metered), usage)) == [
        ("usage", "metered", "8", 800),
        ("tiers", "item", "-4", -400),
        ("commitment", "item", "1", 100),
        ("metering_correction", "item", "1.239999999", 124),
    ]
    included = hybrid("30", allowance={"usd": "10"})
    settlement = settle(
        period(included, following=included), billed(of("4", included), corrected="-50.005")
    )
    # -5000.5 cents go up; the fee is still in whole cents.
    assert shown(settlement) == [
        ("metering_correction", "item", "-50.005", -5000),
        ("base_fee", "subscription", "30", 3000),
    ]
    assert due(settlement) == ("-20.005", -2000, "-0.005")
    assert settlement.allowance is not None
    assert settlement.allowance.left_usd == 6
    credit = plan("prepaid")
    assert shown(settle(period(credit), billed(of("3", credit), corrected="1"))) == [
        ("metering_correction", "item", "1", 100),
        ("credits", "wallet", "3", 0),
    ]


# --- Between models -------------------------------------------------------------------------------
def test_a_first_fee_after_another_model_is_collected_by_the_subscription_that_begins() -> None:
    before = plan("prepaid")
    settlement = settle(period(before, following=hybrid("49")), billed())
    assert shown(settlement) == [("base_fee", "new_subscription", "49", 4900)]


def test_late_usage_is_paid_as_it_was_when_it_was_served() -> None:
    # Served on credit, recorded when the customer was on a subscription: the wallet has paid it,
    # and the allowance covers the other $3.
    prepaid, now = plan("prepaid"), hybrid(allowance={"usd": "10"})
    usage = billed(of("5", prepaid, "late_usage"), of("3", now))
    settlement = settle(period(now), usage)
    assert shown(settlement) == [("credits", "wallet", "5", 0)]
    assert settlement.allowance is not None
    assert settlement.allowance.left_usd == 7
    # And the other way round: not from credit, so it is collected.
    usage = billed(of("5", now, "late_usage"), of("3", prepaid))
    assert shown(settle(period(prepaid), usage)) == [
        ("late_usage", "item", "5", 500),
        ("credits", "wallet", "3", 0),
    ]


def test_a_period_of_two_models_is_refused() -> None:
    with pytest.raises(ValueError, match="plans of 2 models"):
        settle(period(plan(), (10, hybrid())), billed())


# --- Changes inside a period ----------------------------------------------------------------------
def test_a_change_of_plan_prorates_fee_allowance_commitment_and_tiers_by_time() -> None:
    # 30 days; A for 10 of them, B for 20.
    a = hybrid("30", allowance={"usd": "30"}, commitment_usd="90")
    b = hybrid(
        "90",
        allowance={"usd": "60"},
        commitment_usd="150",
        tiers=volume((None, "0.5"), mode="graduated"),
    )
    settlement = settle(period(a, (10, b), following=b), billed(of("100", a), of("50", b)))
    # Allowance 30/3 + 60 x 2/3 = 50, overage 100. Tiers: 1/3 x 100 + 2/3 x 50 = 66.666666667.
    # Commitment 90/3 + 150 x 2/3 = 130, so 63.333333333 is missing. Of A's fee 20 is unused, of
    # B's 60 is for the rest.
    assert shown(settlement) == [
        ("overage", "item", "100", 10000),
        ("tiers", "item", "-33.333333333", -3333),
        ("commitment", "item", "63.333333333", 6333),
        ("proration", "item", "-20", -2000),
        ("proration", "item", "60", 6000),
        ("base_fee", "subscription", "90", 9000),
    ]


def test_an_account_that_ends_gets_back_the_fee_of_the_time_that_is_left() -> None:
    a = hybrid("30", allowance={"usd": "60"}, commitment_usd="90")
    ended = period(a, end=START + 10 * DAY)
    # A third of the period: of the fee 20 comes back, 20 of usage is included, 30 are committed.
    assert shown(settle(ended, billed(of("45", a)))) == [
        ("overage", "item", "25", 2500),
        ("commitment", "item", "5", 500),
        ("proration", "item", "-20", -2000),
    ]


def test_an_end_after_a_change_takes_the_fee_of_the_last_plan_back() -> None:
    # A for 10 days, B for 5: 30 collected; 30 x 20/30 back, 90 x 20/30 more, 90 x 15/30 back.
    # Altogether 30/3 + 90/6 = 25.
    settlement = settle(period(hybrid("30"), (10, hybrid("90")), end=START + 15 * DAY), billed())
    assert [line[2] for line in shown(settlement)] == ["-20", "60", "-45"]
    assert settlement.due_usd + 30 == 25


def test_an_account_that_ends_as_its_period_begins_gets_all_of_the_fee_back() -> None:
    a = hybrid("30", allowance={"usd": "60"}, tiers=volume((None, "0.5")), commitment_usd="90")
    assert shown(settle(period(a, end=START), billed())) == [("proration", "item", "-30", -3000)]


def test_a_fee_that_was_not_collected_in_advance_is_collected_now() -> None:
    settlement = settle(period(hybrid("30"), collected="10"), billed())
    assert shown(settlement) == [("proration", "item", "20", 2000)]


def test_an_opening_collects_the_first_fee_and_nothing_else() -> None:
    opening = PeriodTerms(
        START, START, START, "UTC", (), period(plan(), following=hybrid("9")).following
    )
    assert shown(settle(opening, billed())) == [("base_fee", "subscription", "9", 900)]


# --- Allowances of tokens -------------------------------------------------------------------------
def test_an_allowance_of_tokens_covers_its_share_of_a_kinds_charge() -> None:
    terms = hybrid(allowance={"tokens": {"input": 1_000_000, "output": 500_000}})
    usage = billed(
        sold(terms, "input", 3_000_000),  # $6, a third of it covered: $2
        sold(terms, "output", 100_000),  # $1, all of it covered
        sold(terms, "cache_read", 10_000_000),  # $1, nothing of it
    )
    use = settle(period(terms), usage).allowance
    assert use is not None
    covered = {each.kind: (each.covered_usd, each.left) for each in use.tokens}
    assert covered == {TokenKind.INPUT: (2, 0), TokenKind.OUTPUT: (1, 400_000)}
    assert (use.covered_usd, use.overage_usd, use.included_usd) == (3, 5, None)


def test_an_allowance_that_covers_all_tokens_leaves_not_even_a_rounding() -> None:
    terms = hybrid(markup="0.123456", allowance={"tokens": {"input": 10, "output": 10}})
    usage = billed(sold(terms, "input", 7), sold(terms, "output", 3), roundings=5)
    use = settle(period(terms), usage).allowance
    assert use is not None
    assert use.overage_usd == 0


def test_an_allowance_does_not_cover_what_is_given_back() -> None:
    terms = hybrid(allowance={"tokens": {"input": 1_000_000}})
    usage = billed(
        sold(terms, "input", 500_000), sold(terms, "output", -300_000, "adjustments")
    )  # $1 covered, $3 given back
    assert shown(settle(period(terms), usage)) == [("overage", "item", "-3", -300)]


# --- Tiers ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("mode", "charge", "after"),
    [
        ("volume", "100", "100"),  # up to and with the limit
        ("volume", "100.000000001", "90"),  # and all of it in the next bracket above: 90.0000000009
        ("volume", "1000", "900"),
        ("volume", "1000.000000001", "500.000000000"),  # 500.0000000005, to the even nano
        ("volume", "0", "0"),
        ("volume", "-5", "-5"),  # what is given back is no volume
        ("graduated", "100", "100"),
        ("graduated", "100.000000002", "100.000000002"),  # 100 + 1.8 nano
        ("graduated", "1000", "910"),  # 100 + 900 x 0.9
        ("graduated", "3000", "1910"),  # 910 + 2000 x 0.5
        ("graduated", "-5", "-5"),
    ],
)
def test_tiers_reach_up_to_and_with_their_limits(mode: str, charge: str, after: str) -> None:
    terms = plan(tiers=volume(("100", "1"), ("1000", "0.9"), (None, "0.5"), mode=mode))
    tiers = settle(period(terms), billed(of(charge, terms))).tiers
    assert tiers is not None
    expected = Decimal("90.000000001") if charge == "100.000000001" else Decimal(after)
    assert tiers.after_usd == expected
    (used,) = tiers.segments
    assert sum(part.charge_usd for part in used.parts) == Decimal(charge)


# --- What holds for any period --------------------------------------------------------------------
amounts = st.decimals(0, 5_000, places=9)
cents = st.decimals(1, 500, places=2)
tiers = st.builds(
    lambda limits, factors, mode: volume(
        *zip([*map(str, sorted(limits)), None], map(str, factors), strict=False), mode=mode
    ),
    st.sets(st.decimals(1, 4_000, places=2), min_size=3, max_size=3),
    st.lists(st.decimals(0, 2, places=6), min_size=4, max_size=4),
    st.sampled_from(["graduated", "volume"]),
)
allowances = st.one_of(
    st.none(),
    st.builds(lambda usd: {"usd": str(usd)}, st.decimals(1, 3_000, places=9)),
    st.builds(
        lambda quantities: {"tokens": quantities},
        st.dictionaries(
            st.sampled_from(["input", "output"]), st.integers(1, 2_000_000), min_size=1
        ),
    ),
)
hybrids = st.builds(
    lambda fee, allowance, tiered, commitment: hybrid(
        str(fee), allowance=allowance, tiers=tiered, commitment_usd=str(commitment), markup="0.2"
    ),
    cents,
    allowances,
    st.none() | tiers,
    amounts,
)
metered = st.builds(
    lambda tiered, commitment: plan(tiers=tiered, commitment_usd=str(commitment), markup="0.2"),
    st.none() | tiers,
    amounts,
)
quantities = st.tuples(
    st.sampled_from(["input", "output", "cache_read"]),
    st.integers(-20_000, 3_000_000),
    st.sampled_from(["usage", "late_usage", "adjustments"]),
)


@st.composite
def periods(draw: st.DrawFn, *, equal: bool = False) -> tuple[PeriodTerms, list[Any], PlanTerms]:
    """A period of one model with any changes of plan, its usage, and the plan it begins with."""
    model = draw(st.sampled_from([hybrids, metered]))
    days = sorted(draw(st.sets(st.integers(1, 29), max_size=3)))
    first = draw(model)
    plans = [first, *(first if equal else draw(model) for _ in days)]
    ends = draw(st.sampled_from([END, END - DAY / 3]))
    following = draw(st.none() | hybrids | metered) if ends == END else None
    terms = period(*zip([0, *days], plans, strict=True), end=ends, following=following)
    used = [
        sold(
            draw(st.sampled_from(plans)),
            kind,
            abs(count) if section != "adjustments" else count,
            section,
        )
        for kind, count, section in draw(st.lists(quantities, max_size=6))
    ]
    return terms, used, first


@given(periods(), st.integers(-3, 3), st.just(Decimal(0)) | st.decimals(-50, 50, places=9))
def test_nothing_of_a_period_is_lost_on_its_way_to_the_lines(
    drawn: tuple[PeriodTerms, list[Any], PlanTerms], roundings: int, corrected: Decimal
) -> None:
    terms, used, _ = drawn
    usage = billed(*used, roundings=roundings if used else 0, corrected=str(corrected))
    settlement = settle(terms, usage)
    charge = Decimal(usage.charge_nano_usd) / 10**9
    by_kind: dict[str, Decimal] = {}
    for line in settlement.lines:
        by_kind[line.kind] = by_kind.get(line.kind, Decimal(0)) + line.amount_usd
    # The charge is all there: collected, or let off by the allowance.
    collected = sum(
        by_kind.get(kind, 0) for kind in ("usage", "late_usage", "adjustments", "overage")
    )
    covered = settlement.allowance.covered_usd if settlement.allowance else 0
    assert collected + covered == charge
    assert covered >= 0
    # After tiers, with the rest of the commitment, it is what the period comes to.
    reached = collected + by_kind.get("tiers", 0)
    committed = settlement.commitment.committed_usd if settlement.commitment else 0
    if committed:
        assert reached + by_kind.get("commitment", 0) == max(reached, committed)
    # What an earlier period's meter got wrong is there as it is.
    assert by_kind.get("metering_correction", 0) == corrected
    # Fees collected before, now and with prorations are what each plan asks for its time, but for
    # half a nano-USD a line.
    agreed = sum(
        Fraction(span.terms.base_fee_usd) * _days(span.end - span.start) / 30
        for span in terms.spans
    )
    paid = Fraction(terms.fee_nano_usd, 10**9) + Fraction(by_kind.get("proration", 0))
    assert abs(paid - agreed) <= Fraction(len(settlement.lines), 2 * 10**9)
    # One rounding to cents, and the lines add up to it.
    total = sum((line.amount_usd for line in settlement.lines), Decimal(0))
    assert settlement.due_usd == total
    assert settlement.due_cents == _half_up(Fraction(total) * 100)
    # What Stripe makes lines of by itself is what it makes of them.
    for line in settlement.lines:
        if line.collected_by in ("metered", "subscription", "new_subscription"):
            assert line.amount_cents == _half_up(Fraction(line.amount_usd) * 100)
    assert settlement.due_cents * Decimal("0.01") + settlement.remainder_usd == total


def _days(time: timedelta) -> Fraction:
    return Fraction(time // timedelta(microseconds=1), 86_400 * 10**6)


@given(periods(equal=True))
def test_changing_to_equal_terms_changes_nothing(
    drawn: tuple[PeriodTerms, list[Any], PlanTerms],
) -> None:
    terms, used, first = drawn
    whole = period(first, end=terms.end, following=terms.following and terms.following.terms)
    split, once = settle(terms, billed(*used)), settle(whole, billed(*used))
    assert shown(split) == shown(once)
    assert (split.allowance, split.commitment) == (once.allowance, once.commitment)


@given(st.lists(st.integers(-(10**12), 10**12), min_size=1))
def test_line_cents_add_up_to_the_total_rounded_once_half_up(nano: list[int]) -> None:
    cents = in_cents(nano)
    assert sum(cents) == _half_up(Fraction(sum(nano), 10**7))
    # The first is rounded as it stands, and no line is a cent off.
    assert cents[0] == _half_up(Fraction(nano[0], 10**7))
    pairs = zip(cents, nano, strict=True)
    assert all(abs(line - Fraction(amount, 10**7)) <= 1 for line, amount in pairs)


def test_halves_go_up_so_that_whole_cents_count_for_just_them() -> None:
    assert in_cents([5_000_000]) == [1]
    assert in_cents([4_999_999]) == [0]
    # -0.5 cents, then a dollar: 99.5 is 100, and the dollar is one.
    assert in_cents([-5_000_000, 10**9]) == [0, 100]


def _half_up(cents: Fraction) -> int:
    """Round as a textbook does."""
    return math.floor(cents + Fraction(1, 2))
