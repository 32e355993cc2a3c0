"""Anthropic's cost report against the price book: what tokens explain, and what only prices can."""

from datetime import UTC, date, datetime
from decimal import Decimal

from tallystick.pricing import TokenCounts
from tallystick.reconciling.costs import (
    DayCost,
    Where,
    by_component,
    cost_differences,
    judge,
)
from tallystick.reconciling.differences import Difference, Served
from tallystick.reconciling.findings import Cause, Finding, Kind
from tallystick.reconciling.reported import CostRow, Reported, place_of

DAY = date(2026, 11, 20)
SONNET, HAIKU = "claude-sonnet-5-5", "claude-haiku-5-5"
MILLION = TokenCounts(input=1_000_000)
"""Two dollars of Sonnet's."""


def row(usd: str, component: str = "input", model: str = SONNET) -> tuple[CostRow, int]:
    return CostRow(DAY, model, "", component, Decimal(usd), Decimal(0)), 1


def known(usd: str, model: str = SONNET, *, unpriced: int = 0) -> dict[Where, DayCost]:
    return {Where.of(DAY, model, "tokens"): DayCost(Decimal(usd), unpriced)}


def used(
    reported: TokenCounts, served: TokenCounts, free: TokenCounts | None = None, model: str = SONNET
) -> Difference:
    return Difference.between(
        place_of(model, "", "", ""),
        datetime(2026, 11, 20, tzinfo=UTC),
        Reported(reported, 1),
        Served(served, 1, free or TokenCounts(), int(free is not None)),
    )


def judged(
    told: list[tuple[CostRow, int]], ours: dict[Where, DayCost], *usage: Difference
) -> list[Finding]:
    unlike = cost_differences(by_component(told), ours)
    found = [judge(each, usage) for each in unlike]
    return [each for each in found if each is not None]


def test_the_same_money_in_fractions_of_a_cent_is_no_difference() -> None:
    told = [row("1.9999999"), row("0.5000000001", "output", f"{SONNET}-20260901")]
    assert judged(told, known("2.5")) == []
    assert judged([row("2.000003")], known("2"), used(MILLION, MILLION)) != []


def test_the_same_tokens_at_another_price_are_a_matter_of_price() -> None:
    (found,) = judged([row("3")], known("2"), used(MILLION, MILLION))
    assert (found.kind, found.cause, found.usd) == (Kind.COST_DIFFERS, Cause.PRICE, 1)
    assert found.place == {"model": SONNET}
    assert found.amounts == {"nano_usd": {"cost": 3 * 10**9, "ledger": 2 * 10**9}}
    assert (found.end - found.start).days == 1
    assert not found.explained


def test_tokens_that_differ_explain_their_worth_and_no_more() -> None:
    more = used(MILLION.plus(MILLION), MILLION)
    assert judged([row("4")], known("2"), more) == []
    (found,) = judged([row("5")], known("2"), more)
    assert found.cause is Cause.UNKNOWN


def test_tokens_told_as_another_kind_explain_what_they_cost_otherwise() -> None:
    short, long = TokenCounts(cache_write_5m=1_000_000), TokenCounts(cache_write_1h=1_000_000)
    assert judged([row("2.5", "cache_write_5m")], known("4"), used(short, long)) == []


def test_prices_that_depend_on_the_prompt_are_not_guessed() -> None:
    # $0.10 or $0.50, by how long each of the prompts was.
    more = used(MILLION, TokenCounts(), model=HAIKU)
    assert judged([row("0.3", model=HAIKU)], {}, more) == []
    assert [each.cause for each in judged([row("0.6", model=HAIKU)], {}, more)] == [Cause.UNKNOWN]


def test_refusals_are_in_the_usage_and_cost_nothing() -> None:
    refused = used(MILLION, MILLION, MILLION)
    assert judged([], {}, refused) == []
    # Also where the usage report leaves them out.
    assert judged([row("2")], known("2"), used(MILLION, MILLION.plus(MILLION), MILLION)) == []
    more = used(MILLION.plus(MILLION), MILLION.plus(MILLION), MILLION)
    assert judged([row("2")], known("2"), more) == []


def test_refusals_that_are_charged_are_told() -> None:
    (found,) = judged([row("4")], known("2"), used(*[MILLION.plus(MILLION)] * 2, MILLION))
    assert (found.cause, found.explained) == (Cause.REFUSALS, False)


def test_records_without_a_price_are_told_with_the_difference() -> None:
    (found,) = judged([row("2")], known("0", unpriced=3), used(MILLION, MILLION))
    assert found.cause is Cause.PRICE
    assert "3 of our records have no price yet" in found.words


def test_searches_are_compared_for_all_models_and_other_costs_by_their_name() -> None:
    searches = {Where.of(DAY, SONNET, "web_search"): DayCost(Decimal("0.03"))}
    told = [row("0.02", "web_search"), row("0.01", "web_search", "")]
    assert judged(told, searches) == []
    (found,) = judged([*told, row("7", "code_execution", "")], searches)
    assert (found.place, found.cause) == ({"component": "code_execution"}, Cause.UNKNOWN)
