"""Why Anthropic's usage report and the ledger differ: each cause, and what none may explain."""

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.pricing import TokenCounts
from tallystick.reconciling.differences import NOTHING, Served, minus, negative, tokens
from tallystick.reconciling.findings import Cause, Finding, Kind
from tallystick.reconciling.lost_calls import Known, apportion
from tallystick.reconciling.minutes import MINUTE
from tallystick.reconciling.open_batches import OpenBatch
from tallystick.reconciling.reported import Place, place_of
from tests.reconciling.usage_stand import HAIKU, MORNING, PLACE, SONNET, Hours, at, settled

USED = TokenCounts(input=1_000, output=200)
LOST = TokenCounts(input=400, output=50)
BATCH = PLACE._replace(service_tier="batch")
HOUR = timedelta(hours=1)


def told(found: list[Finding]) -> list[tuple[Cause, Kind, float, float]]:
    """Return causes and kinds, each with minutes: from, and for how long."""
    return [
        (
            each.cause,
            each.kind,
            (each.start - MORNING) / MINUTE,
            (each.end - each.start) / MINUTE,
        )
        for each in found
    ]


def differs(found: Finding) -> dict[str, int]:
    return {
        kind: int(sides["claude"]) - int(sides["ledger"]) for kind, sides in found.amounts.items()
    }


# --- Nothing --------------------------------------------------------------------------------------
@given(
    st.lists(
        st.tuples(
            st.floats(6, 234), st.floats(-5, 5), st.integers(0, 5), st.integers(0, 3),
            st.sampled_from([PLACE, BATCH, place_of(HAIKU, "", "", "")]),
        ),
        max_size=30,
    )
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_clocks_that_are_minutes_apart_leave_nothing_open(
    calls: list[tuple[float, float, int, int, Place]],
) -> None:
    hours = Hours()
    for minute, apart, prompt, answer, place in calls:
        counts = TokenCounts(input=prompt, output=answer)
        # The ledger's own instant decides how near an edge it was.
        moved = minute + apart
        near = moved if _near_edge(minute) else minute
        hours.use(minute, counts, reported_at=near, place=place)
    found = hours.compare()
    assert all(each.cause is Cause.BUCKET_EDGE and each.explained for each in found)


def _near_edge(minute: float) -> bool:
    return min(minute % 60, 60 - minute % 60) <= 4.9


def test_names_and_unset_dimensions_of_both_sides_are_the_same_place() -> None:
    assert place_of("claude-haiku-4-5", "", "", "") == place_of(
        HAIKU, "standard", "not_available", "standard"
    )
    assert place_of("claude-new-9-20270101", "", "", "").model == "claude-new-9"
    assert place_of(SONNET, "batch", "us", "fast").named == {
        "model": SONNET,
        "service_tier": "batch",
        "inference_geo": "us",
        "speed": "fast",
    }


# --- Told otherwise -------------------------------------------------------------------------------
def test_an_answer_reported_in_the_next_hour_is_an_edge() -> None:
    hours = Hours()
    hours.use(30, USED)
    hours.use(59.9, LOST, reported_at=60.1)
    (found,) = hours.compare()
    assert told([found]) == [(Cause.BUCKET_EDGE, Kind.MISPLACED_USAGE, 0, 120)]
    assert (differs(found), found.explained) == ({"input": -400, "output": -50}, True)


def test_usage_in_another_hour_is_no_edge_where_nothing_was_served_near_it() -> None:
    hours = Hours()
    hours.use(30, LOST, reported_at=90)
    assert told(hours.compare()) == [
        (Cause.UNKNOWN, Kind.UNREPORTED_USAGE, 0, 60),
        (Cause.OUTSIDE_USAGE, Kind.UNRECORDED_USAGE, 60, 60),
    ]


def test_a_lost_call_does_not_hide_in_the_traffic_of_an_edge() -> None:
    hours = Hours()
    for minute in range(1, 239):
        hours.use(minute, USED)
    hours.report(100, LOST)
    hours.lose(99, 400)
    (found,) = hours.compare()
    assert (found.cause, settled([found])) == (Cause.LOST_CALL, {1: LOST})


def test_an_edge_and_a_lost_call_in_one_hour_are_told_apart() -> None:
    hours = Hours()
    hours.use(60.1, USED, reported_at=59.9)
    hours.report(20, LOST)
    hours.lose(19, 400)
    edge, lost = hours.compare()
    assert (edge.cause, tokens(USED)) == (Cause.BUCKET_EDGE, edge.tokens)
    assert settled([lost]) == {1: LOST}


def test_what_the_hour_behind_the_last_may_explain_is_left_to_the_next_run() -> None:
    hours = Hours(told_behind=False)
    hours.use(239.9, LOST, reported_at=240.1)
    assert hours.compare() == []
    hours.use(150, LOST, reported_at=400)
    assert told(hours.compare()) == [(Cause.UNKNOWN, Kind.UNREPORTED_USAGE, 120, 60)]


def test_refusals_that_the_report_leaves_out_are_explained() -> None:
    hours = Hours()
    hours.use(10, USED)
    hours.record(20, Served(LOST, 1, LOST, 1))
    (found,) = hours.compare()
    assert told([found]) == [(Cause.REFUSALS, Kind.UNREPORTED_USAGE, 0, 60)]
    assert found.explained


def test_attempts_that_a_fallback_declined_are_explained() -> None:
    hours = Hours()
    hours.use(10, USED)
    hours.record(10, Served(declined=LOST))
    hours.report(10, LOST, requests=0)
    (found,) = hours.compare()
    assert (found.cause, found.kind) == (Cause.REFUSALS, Kind.UNRECORDED_USAGE)


def test_a_lost_call_is_found_beside_refusals_that_are_left_out() -> None:
    hours = Hours()
    hours.record(20, Served(USED, 1, USED, 1))
    hours.report(40, LOST)
    hours.lose(39, 400)
    refusals, lost = hours.compare()
    assert refusals.cause is Cause.REFUSALS
    assert settled([lost]) == {1: LOST}


def test_cache_writes_of_another_lifetime_are_caching_and_cost_the_difference() -> None:
    hours = Hours()
    hours.use(
        10,
        TokenCounts(input=10, output=5, cache_write_1h=1_000_000),
        told_as=TokenCounts(input=10, output=5, cache_write_5m=1_000_000),
    )
    (found,) = hours.compare()
    assert told([found]) == [(Cause.CACHING, Kind.MISPLACED_USAGE, 0, 60)]
    assert found.usd == Decimal("2.50") - 4  # five minutes' price less an hour's
    assert found.explained


# --- Calls without an answer ----------------------------------------------------------------------
def test_a_lost_call_is_settled_with_exactly_what_the_report_has_more() -> None:
    hours = Hours()
    for minute in (5, 19.9, 20.1, 55):
        hours.use(minute, USED)
    hours.report(20.5, LOST)
    hours.lose(19, 300)
    (found,) = hours.compare()
    assert told([found]) == [(Cause.LOST_CALL, Kind.UNRECORDED_USAGE, 0, 60)]
    assert found.proposal is not None
    assert found.proposal.automatic
    assert settled([found]) == {1: LOST}
    facts = found.proposal.subjects["1"]
    assert (facts["cost_usd"], facts["shared"]) == ("0.0013", False)
    assert found.usd == Decimal("0.0013")


def test_several_lost_calls_of_an_hour_are_told_apart_by_their_minutes_and_prompts() -> None:
    hours = Hours()
    large = TokenCounts(input=9_000, output=10)
    hours.report(10, LOST)
    hours.report(12, large)
    hours.lose(9, 9_500)
    hours.lose(9, 390)
    hours.lose(9, 100_000)  # was not served
    (found,) = hours.compare()
    assert settled([found]) == {1: large, 2: LOST}


def test_lost_calls_are_told_apart_in_busy_minutes_too() -> None:
    hours = Hours()
    large = TokenCounts(input=5_000, output=10)
    for minute in range(1, 59):
        hours.use(minute, USED)
    for minute in (11, 14, 38):
        hours.use(minute + 0.01, USED, reported_at=minute - 0.01)  # reported a minute earlier
    hours.report(10, LOST)
    hours.report(40, large)
    hours.lose(9, 600)
    hours.lose(39, 4_000)
    (found,) = hours.compare()
    assert settled([found]) == {1: LOST, 2: large}


def test_minutes_that_do_not_add_up_leave_the_hour_whole() -> None:
    hours = Hours()
    for minute in range(1, 59):
        hours.use(minute + 0.01, USED, reported_at=minute - 0.01)
    hours.report(10, LOST)
    hours.report(40, LOST)
    hours.lose(9, 400)
    hours.lose(39, 400)
    (found,) = hours.compare()
    assert settled([found]) == {1: LOST, 2: LOST}
    assert found.proposal is not None
    assert all(facts["shared"] for facts in found.proposal.subjects.values())


def test_calls_that_fit_the_same_usage_share_it_exactly() -> None:
    hours = Hours()
    hours.report(10, TokenCounts(input=1_001, output=7), requests=2)
    for minute in (8, 9):
        hours.lose(minute, 500)
    (found,) = hours.compare()
    shares = settled([found])
    assert sorted(shares) == [1, 2]
    assert shares[1].plus(shares[2]) == TokenCounts(input=1_001, output=7)
    assert found.proposal is not None
    assert all(facts["shared"] for facts in found.proposal.subjects.values())


def test_no_more_calls_are_settled_than_the_report_has_requests() -> None:
    hours = Hours()
    hours.report(10, TokenCounts(input=900, output=7), requests=1)
    for minute in (8, 9):
        hours.lose(minute, 500)
    (found,) = hours.compare()
    assert len(settled([found])) == 1


def test_a_broken_stream_gets_no_less_than_it_has_told() -> None:
    hours = Hours()
    hours.report(10, TokenCounts(input=1_000, output=300), requests=2)
    hours.lose(9, 10, at_least=TokenCounts(input=300, output=250))
    hours.lose(9, 700)
    (found,) = hours.compare()
    first, second = settled([found]).values()
    assert first.input >= 300
    assert first.output >= 250
    assert first.plus(second) == TokenCounts(input=1_000, output=300)


def test_a_call_that_had_told_more_is_not_the_one() -> None:
    hours = Hours()
    hours.report(10, LOST)
    hours.lose(9, 400, at_least=TokenCounts(input=400, output=51))
    hours.lose(9, 390)
    (found,) = hours.compare()
    assert settled([found]) == {2: LOST}


def test_a_broken_stream_that_told_of_another_place_is_not_served_here() -> None:
    hours = Hours()
    hours.report(10, LOST)
    hours.lose(9, 400, told=PLACE._replace(inference_geo="us"))
    (found,) = hours.compare()
    assert found.cause is Cause.OUTSIDE_USAGE


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "claude-opus-5-5"},
        {"estimated_prompt": 5_000},
        {"started_at": at(30)},
        {"at_least": TokenCounts(input=401)},
    ],
    ids=["another model", "another length", "not begun yet", "more than that"],
)
def test_usage_that_cannot_be_a_lost_calls_is_from_outside(changes: dict[str, object]) -> None:
    hours = Hours()
    hours.report(10, LOST)
    hours.lose(9, 400, **changes)
    (found,) = hours.compare()
    assert told([found]) == [(Cause.OUTSIDE_USAGE, Kind.UNRECORDED_USAGE, 0, 60)]
    assert (found.proposal, found.explained) == (None, False)
    assert found.usd == Decimal("0.0013")


def test_a_lost_call_and_usage_from_outside_are_told_apart() -> None:
    hours = Hours()
    hours.report(10, LOST)
    hours.report(40, TokenCounts(input=90_000), requests=3)
    hours.lose(9, 400)
    lost, outside = hours.compare()
    assert told([lost, outside]) == [
        (Cause.LOST_CALL, Kind.UNRECORDED_USAGE, 10, 1),
        (Cause.OUTSIDE_USAGE, Kind.UNRECORDED_USAGE, 0, 60),
    ]
    # Once it is settled, the rest is found at the same place with the same amounts.
    hours.record(10, Served(LOST, 1))
    hours.calls.clear()
    (again,) = hours.compare()
    assert (again.key, again.amounts) == (outside.key, outside.amounts)


def test_failed_calls_that_are_reported_are_our_cost() -> None:
    hours = Hours()
    hours.report(10, LOST)
    hours.lose(9.5, 400, Known.FAILED)
    (found,) = hours.compare()
    assert (found.cause, found.explained, found.proposal) == (Cause.FAILED_REQUESTS, True, None)
    assert found.usd == Decimal("0.0013")


def test_a_call_settled_as_not_served_is_never_settled_again() -> None:
    hours = Hours()
    hours.report(10, LOST)
    hours.lose(9, 400, Known.NOT_SERVED)
    (found,) = hours.compare()
    assert (found.cause, found.explained, found.proposal) == (Cause.LOST_CALL, False, None)
    assert [each["attempt_id"] for each in found.requests] == [1]


def test_a_lost_call_without_a_price_is_not_booked() -> None:
    hours = Hours()
    priority = PLACE._replace(service_tier="priority")
    hours.report(10, LOST, place=priority)
    hours.lose(9, 400)
    (found,) = hours.compare()
    assert (found.cause, found.usd, found.proposal) == (Cause.LOST_CALL, None, None)


@given(
    st.lists(st.tuples(st.integers(0, 59), st.integers(0, 3_000), st.integers(0, 90)), max_size=8),
    st.lists(
        st.tuples(st.integers(0, 59), st.integers(1, 3_000), st.integers(0, 90), st.booleans()),
        max_size=6,
    ),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_whatever_was_lost_nothing_is_invented_and_nothing_is_booked_twice(
    answered: list[tuple[int, int, int]],
    unanswered: list[tuple[int, int, int, bool]],
    requests_are_told: bool,
) -> None:
    hours = Hours(count=1)
    requests = 1 if requests_are_told else None
    for minute, prompt, answer in answered:
        hours.use(minute + 0.5, TokenCounts(input=prompt, output=answer))
    excess, count = NOTHING, 0
    for minute, prompt, answer, is_ours in unanswered:
        counts = TokenCounts(input=prompt, output=answer)
        hours.report(minute, counts, requests)
        excess, count = excess.plus(counts), count + 1
        if is_ours:
            hours.lose(minute - 0.5, prompt)
    found = hours.compare()
    booked = settled(found)
    assert len(booked) <= count
    left = excess
    for counts in booked.values():
        assert min(counts) >= 0
        left = minus(left, counts)
    still_open = [each for each in found if each.proposal is None]
    assert sum(each.tokens for each in still_open) == tokens(left)
    assert min(left) >= 0
    assert len({each.key for each in found}) == len(found)


@given(st.integers(0, 10**12), st.lists(st.integers(1, 10**6), min_size=1, max_size=50))
def test_shares_are_whole_and_add_up(count: int, weights: list[int]) -> None:
    parts = apportion(count, weights)
    assert sum(parts) == count
    assert min(parts) >= 0


def test_what_a_call_in_flight_may_have_used_is_left_to_the_next_run() -> None:
    hours = Hours()
    hours.report(10, LOST)
    hours.lose(9, 400, Known.IN_FLIGHT)
    assert (hours.compare(), hours.unjudged) == ([], {MORNING})


# --- Batches without records ----------------------------------------------------------------------
def lost_batch(items: int, **changes: object) -> OpenBatch:
    facts = {
        "job_id": "job",
        "shard": 1,
        "customer_id": "acme",
        "model": PLACE.model,
        "since": at(1),
        "until": at(24 * 60),
        "items": items,
        "settled": 0,
        "estimated_prompt": items * 100,
    }
    return OpenBatch(**(facts | changes))  # type: ignore[arg-type]


def test_items_of_a_lost_batch_are_settled_hour_after_hour() -> None:
    hours = Hours(batches=[lost_batch(10)])
    hours.report(10, TokenCounts(input=450, output=8), requests=4, place=BATCH)
    hours.report(70, TokenCounts(input=600, output=12), requests=6, place=BATCH)
    first, second = hours.compare()
    subjects = [each.proposal.subjects for each in (first, second) if each.proposal]
    assert [list(each) for each in subjects] == [["job/1#0"], ["job/1#4"]]
    facts = subjects[0]["job/1#0"]
    assert (facts["first"], facts["items"], facts["input_tokens"]) == (0, 4, 450)
    assert facts["unit_usd"]["input"] == "0.000001"  # half of the price
    assert first.usd == Decimal(facts["cost_usd"]) == Decimal("0.00049")


def test_more_requests_than_items_are_not_a_lost_batchs() -> None:
    hours = Hours(batches=[lost_batch(10, settled=7)])
    hours.report(10, TokenCounts(input=400, output=8), requests=4, place=BATCH)
    (found,) = hours.compare()
    assert found.cause is Cause.OUTSIDE_USAGE


def test_a_lost_batch_is_not_served_at_the_full_price_nor_after_a_day() -> None:
    hours = Hours(batches=[lost_batch(10, since=at(120)), lost_batch(10, until=at(-10))])
    hours.report(70, TokenCounts(input=400, output=8), requests=4)
    hours.report(10, TokenCounts(input=400, output=8), requests=4, place=BATCH)
    assert {each.cause for each in hours.compare()} == {Cause.OUTSIDE_USAGE}


def test_a_batch_that_is_not_read_yet_is_left_to_the_next_run() -> None:
    hours = Hours(unread=[lost_batch(10)])
    hours.report(70, TokenCounts(input=1_000, output=8), requests=10, place=BATCH)
    assert (hours.compare(), hours.unjudged) == ([], {at(60)})
    hours.unread = [lost_batch(9)]
    (found,) = hours.compare()
    assert (found.cause, hours.unjudged) == (Cause.OUTSIDE_USAGE, set())


# --- What is left ---------------------------------------------------------------------------------
def test_usage_that_is_not_reported_stays_open() -> None:
    hours = Hours()
    hours.record(10, Served(LOST, 1))
    (found,) = hours.compare()
    assert told([found]) == [(Cause.UNKNOWN, Kind.UNREPORTED_USAGE, 0, 60)]
    assert (found.usd, found.tokens, found.explained) == (Decimal("-0.0013"), 450, False)


def test_more_of_one_kind_and_less_of_another_is_not_guessed_at() -> None:
    hours = Hours()
    hours.use(10, USED, told_as=USED.plus(TokenCounts(input=5, output=-2)))
    hours.lose(9, 5)
    (found,) = hours.compare()
    assert (found.cause, found.tokens, found.proposal) == (Cause.UNKNOWN, 7, None)
    assert negative(TokenCounts(input=5)) == TokenCounts(input=-5)
