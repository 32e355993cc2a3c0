"""Terms of a period: what each model may have, and what is refused with a remedy."""

from typing import Any

import pytest

from tallystick.plans import PlanTerms, example_plans

BRACKETS = [{"up_to_usd": "500", "factor": "1"}, {"factor": "0.9"}]
OF_A_MODEL: dict[str, dict[str, Any]] = {
    "pass-through": {
        "tiers": {"mode": "volume", "brackets": BRACKETS},
        "commitment_usd": "250.5",
        "payment_terms_days": 45,
        "spend_cap_usd": "1000",
        "grace_days": 0,
        "reminder_days": [],
    },
    "prepaid": {
        "top_up": {"below_usd": "10", "amount_usd": "50.00", "expires_after_days": 365},
        "low_balance_usd": "0.5",
    },
    "hybrid": {
        "base_fee_usd": "99.99",
        "allowance": {"tokens": {"input": 1_000_000, "web_search": 10}},
        "tiers": {"mode": "graduated", "brackets": BRACKETS},
        "commitment_usd": "1",
        "payment_terms_days": 90,
        "grace_days": 10,
        "reminder_days": [1, 5, 9],
    },
}


@pytest.mark.parametrize("model", OF_A_MODEL)
def test_a_model_takes_all_that_it_has_a_use_for_and_survives_the_ledgers_json(model: str) -> None:
    terms = PlanTerms.read({"model": model, **OF_A_MODEL[model]})
    assert PlanTerms.read(terms.model_dump(mode="json")) == terms


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"base_fee_usd": "9"}, "base_fee_usd: a pass-through plan has none.*hybrid"),
        ({"allowance": {"usd": "9"}}, "allowance: a pass-through plan has none.*hybrid"),
        ({"low_balance_usd": "9"}, "low_balance_usd: a pass-through plan has none.*prepaid"),
        (
            {"model": "prepaid", "tiers": OF_A_MODEL["hybrid"]["tiers"]},
            "tiers: a prepaid plan has none.*pass-through or hybrid",
        ),
        ({"model": "prepaid", "commitment_usd": "9"}, "commitment_usd: a prepaid"),
        ({"model": "prepaid", "payment_terms_days": 45}, "payment_terms_days: a prepaid"),
        ({"model": "hybrid"}, "base_fee_usd: a hybrid plan needs one"),
        ({"model": "postpaid"}, "model"),
        ({"base_fee_usd": "9.999"}, "base_fee_usd"),
        ({"commitment_usd": "-1"}, "commitment_usd"),
        ({"spend_cap_usd": "0"}, "spend_cap_usd"),
        ({"payment_terms_days": 30}, "payment_terms_days: 0 collects at once, 45 to 90"),
        ({"reminder_days": [2, 1]}, "reminder_days"),
        ({"grace_days": 2}, r"reminder_days: name days before the end of grace_days \(2\)"),
    ],
)
def test_terms_that_nobody_would_keep_are_refused(bad: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        PlanTerms.read({"model": "pass-through", **bad})


@pytest.mark.parametrize(
    ("part", "bad", "says"),
    [
        ("allowance", {}, "either usd or tokens"),
        ("allowance", {"usd": "9", "tokens": {"input": 9}}, "either usd or tokens"),
        ("allowance", {"tokens": {"ouput": 9}}, "tokens"),
        ("allowance", {"tokens": {"input": 0}}, "tokens"),
        ("tiers", {"mode": "volume", "brackets": []}, "brackets"),
        ("tiers", {"mode": "volume", "brackets": BRACKETS[:1]}, "leave up_to_usd out in the last"),
        ("tiers", {"mode": "volume", "brackets": BRACKETS[::-1]}, "leave up_to_usd out"),
        (
            "tiers",
            {"mode": "volume", "brackets": [BRACKETS[0], *BRACKETS]},
            "order them by up_to_usd",
        ),
    ],
)
def test_an_allowance_and_tiers_say_one_thing(part: str, bad: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        PlanTerms.read({"model": "hybrid", "base_fee_usd": "9", part: bad})


def test_a_plan_of_each_model_ships() -> None:
    shipped = {plan.plan: PlanTerms.read(plan.terms).model for plan in example_plans()}
    assert shipped == {
        "pass-through": "pass-through",
        "at-cost": "pass-through",
        "prepaid": "prepaid",
        "hybrid": "hybrid",
    }
