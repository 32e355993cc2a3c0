"""The comparison that the demo stands on must see each way in which records can differ."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from scripts.demo_parts.sides import claude_figures, ledger_figures
from scripts.demo_parts.tally import CHARGE, COST, KINDS, Lost, Tally

ACME = {
    **{("acme", kind): Decimal(100 + number) for number, kind in enumerate(KINDS)},
    ("acme", COST): Decimal("0.0123"),
    ("acme", CHARGE): Decimal("0.01476"),
}
GOOD = Tally(
    requests=3,
    answered=3,
    billed=2,
    refused=1,
    metered=2,
    claude=ACME,
    ledger=ACME,
    stripe=ACME,
    lost=Lost(unknown_outcomes=1, served=1),
)


def test_equal_records_tally():
    assert GOOD.differences() == []
    assert GOOD.as_json()["tally"] is True


@pytest.mark.parametrize("side", ["claude", "ledger", "stripe"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_token_more_on_one_side_fails_the_tally(side: str, kind: str):
    figures = {**ACME, ("acme", kind): ACME["acme", kind] + 1}
    changed = replace(GOOD, **{side: figures})
    assert changed.as_json()["tally"] is False
    assert f"acme, {kind}" in changed.differences()[0]


@pytest.mark.parametrize(
    ("side", "kind"), [("claude", COST), ("ledger", COST), ("ledger", CHARGE), ("stripe", CHARGE)]
)
def test_one_nano_usd_more_on_one_side_fails_the_tally(side: str, kind: str):
    figures = {**ACME, ("acme", kind): ACME["acme", kind] + Decimal("0.000000001")}
    assert replace(GOOD, **{side: figures}).differences() != []


def test_usage_under_another_customer_fails_although_the_sums_agree():
    moved = {("birch", kind): amount for (_, kind), amount in ACME.items()}
    assert replace(GOOD, stripe=moved).differences() != []


@pytest.mark.parametrize(
    "change",
    [
        {"answered": 2},
        {"billed": 1, "metered": 1},
        {"metered": 1},
        {"lost": Lost(unknown_outcomes=0, served=1)},
    ],
)
def test_a_count_that_falls_short_fails_the_tally(change: dict[str, Any]):
    assert replace(GOOD, **change).differences() != []


def test_a_served_call_that_answered_nobody_is_our_cost_and_no_customer_s():
    records = [record("msg_1")]
    figures, lost = claude_figures([served("msg_1"), served("msg_2")], records, unknown=1)

    assert figures == {
        key: amount for key, amount in ledger_figures(records).items() if key[1] != CHARGE
    }
    assert (lost.served, lost.tokens["output"]) == (1, 10)
    # 1,000 input tokens at $1 and 10 output tokens at $5 a million.
    assert lost.cost_usd == Decimal("0.00105")


def test_a_served_refusal_adds_nothing():
    free = {**served("msg_1"), "billable": dict.fromkeys(KINDS, 0), "stop_reason": "refusal"}
    figures, _ = claude_figures([free], [record("msg_1")], unknown=0)
    assert not any(figures.values())


def served(message_id: str) -> dict[str, Any]:
    """A row of the stand-in's journal."""
    return {
        "message_id": message_id,
        "model": "claude-haiku-4-5",
        "served_at": datetime(2026, 11, 1, tzinfo=UTC).timestamp(),
        "stop_reason": "end_turn",
        "usage": {
            "input_tokens": 1_000,
            "output_tokens": 10,
            "service_tier": "standard",
            "inference_geo": "not_available",
            "speed": "standard",
        },
        "billable": {**dict.fromkeys(KINDS, 0), "input": 1_000, "output": 10},
    }


def record(message_id: str) -> dict[str, Any]:
    """The usage record of such a call."""
    return {
        "message_id": message_id,
        "customer_id": "acme",
        **{f"{kind}_tokens": 0 for kind in KINDS},
        "input_tokens": 1_000,
        "output_tokens": 10,
        "cost_usd": Decimal("0.00105"),
        "charge_nano_usd": 1_260_000,
    }
