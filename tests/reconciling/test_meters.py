"""Minutes that differ at Stripe: their causes, and what mends them by age and by money."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tallystick.metering import CHARGE_METER, correction_identifier, repairs, token_meter
from tallystick.reconciling.findings import Cause, Finding, Kind
from tallystick.reconciling.meter_minutes import Collects, Minute, SentEvent
from tallystick.reconciling.meters import judge

AT = datetime(2026, 11, 10, 9, 17, tzinfo=UTC)
NOW = AT + timedelta(hours=2)
INPUT = token_meter("input")
DAY = timedelta(days=1)


def event(name: str, value: int, **changes: Any) -> SentEvent:
    at = AT + timedelta(seconds=5)
    whole = SentEvent(
        identifier=name,
        request_id=f"request of {name}",
        value=value,
        stripe_customer_id="cus_acme",
        occurred_at=at,
        first_sent_at=at,
        acknowledged=True,
        on_statement=False,
    )
    return replace(whole, **changes)


def minute(counted: int, *events: SentEvent, customer: str = "acme", **changes: Any) -> Minute:
    whole = Minute(
        customer_id=customer,
        stripe_customer_id=f"cus_{customer}",
        meter=INPUT,
        at=AT,
        counted=counted,
        events=events,
        collects=Collects.NOTHING,
    )
    return replace(whole, **changes)


def charge(counted: int, *events: SentEvent, **changes: Any) -> Minute:
    """A minute whose amount is on an invoice that is not final."""
    terms = {"meter": CHARGE_METER, "collects": Collects.OPEN_INVOICE, **changes}
    return minute(counted, *events, **terms)


def found(*minutes: Minute, now: datetime = NOW) -> Finding:
    (finding,) = judge(minutes, now)
    return finding


def proposed(finding: Finding) -> tuple[str, bool, dict[str, Any]]:
    """Return the repair, whether it needs no person, and the facts of each subject."""
    assert finding.proposal is not None
    assert not finding.explained
    whole = finding.proposal.as_dict()
    return whole["repair"], whole["automatic"], whole["subjects"]


A, B, C = event("a", 100), event("b", 30), event("c", 7)


# --- Causes ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("counted", "kind", "cause", "named"),
    [
        (37, Kind.NOT_COUNTED, Cause.LOST_EVENT, ["a"]),
        (7, Kind.NOT_COUNTED, Cause.LOST_EVENT, ["a", "b"]),
        (130, Kind.NOT_COUNTED, Cause.LOST_EVENT, ["c"]),
        (136, Kind.NOT_COUNTED, Cause.UNKNOWN, ["a", "b", "c"]),
        (167, Kind.OVERCOUNTED, Cause.COUNTED_TWICE, ["b"]),
        (138, Kind.OVERCOUNTED, Cause.OUTSIDE_EVENT, ["a", "b", "c"]),
    ],
)
def test_the_events_of_a_minute_tell_the_cause(
    counted: int, kind: Kind, cause: Cause, named: list[str]
) -> None:
    finding = found(minute(counted, A, B, C))
    assert (finding.kind, finding.cause) == (kind, cause)
    assert [each["identifier"] for each in finding.requests] == named
    assert finding.amounts == {"input": {"outbox": 137, "stripe": counted}}
    assert (finding.tokens, finding.usd) == (abs(counted - 137), None)


def test_of_equal_events_it_cannot_be_told_which_one_went_wrong() -> None:
    twin = event("twin", 100)
    for counted in (107, 307):
        finding = found(minute(counted, A, twin, C))
        assert finding.cause is Cause.UNKNOWN
        repair, automatic, _ = proposed(finding)
        assert (repair, automatic) == ("correct_meter", False)


@pytest.mark.parametrize("counted", [137, 167, 144, 174])
def test_what_was_not_acknowledged_may_be_counted_or_not(counted: int) -> None:
    unanswered = [replace(B, acknowledged=False), replace(C, acknowledged=False)]
    assert judge([minute(counted, event("d", 137), *unanswered)], NOW) == []


def test_as_much_at_another_customer_was_counted_there() -> None:
    ours, theirs = minute(37, A, B, C), minute(109, event("z", 9), customer="zeta")
    lost, gained = judge([ours, theirs], NOW)
    assert (lost.cause, gained.cause) == (Cause.WRONG_CUSTOMER, Cause.WRONG_CUSTOMER)
    assert (lost.kind, gained.kind) == (Kind.NOT_COUNTED, Kind.OVERCOUNTED)
    assert lost.requests == gained.requests  # both name the event that it is about
    repair, automatic, facts = proposed(gained)
    assert (repair, automatic, list(facts)) == ("cancel_event", False, ["a"])
    assert facts["a"]["stripe_customer_id"] == "cus_zeta"
    repair, automatic, ((_, facts),) = (*proposed(lost)[:2], proposed(lost)[2].items())
    assert (repair, automatic, facts["value"]) == ("correct_meter", False, 100)
    assert facts["stripe_customer_id"] == "cus_acme"


def test_two_customers_with_as_much_too_many_leave_it_open_which_one_has_it() -> None:
    others = [minute(109, event("z", 9), customer=name) for name in ("zeta", "yps")]
    causes = [each.cause for each in judge([minute(37, A, B, C), *others], NOW)]
    assert causes == [Cause.LOST_EVENT, Cause.OUTSIDE_EVENT, Cause.OUTSIDE_EVENT]


# --- What mends it --------------------------------------------------------------------------------
@pytest.mark.parametrize("age", [timedelta(hours=2), timedelta(hours=30), 33 * DAY])
def test_a_lost_event_is_sent_again_without_a_person(age: timedelta) -> None:
    repair, automatic, facts = proposed(found(charge(0, A), now=AT + age))
    assert (repair, automatic) == ("resend", True)
    assert facts == {
        "a": {
            "identifier": "a",
            "sent_as": "a",
            "meter": CHARGE_METER,
            "value": 100,
            "customer_id": "acme",
            "stripe_customer_id": "cus_acme",
            "request_id": "request of a",
            "occurred_at": "2026-11-10T09:17:05+00:00",
            "first_sent_at": "2026-11-10T09:17:05+00:00",
        }
    }


def test_after_a_resend_in_vain_its_next_name_is_for_a_person() -> None:
    tried = frozenset({("resend", "a")})
    repair, automatic, facts = proposed(found(charge(0, A, tried=tried)))
    assert (repair, automatic, list(facts)) == ("resend", False, ["a#r1"])
    every = frozenset(("resend", name) for name in repairs("a"))
    assert proposed(found(charge(0, A, tried=every)))[0] == "correct_meter"


def test_what_is_counted_twice_is_cancelled_for_a_day_and_corrected_after_it() -> None:
    twice = charge(200, A)
    repair, automatic, facts = proposed(found(twice))
    assert (repair, automatic, list(facts)) == ("cancel_event", False, ["a"])
    assert facts["a"]["value"] == 100
    for finding in (
        found(twice, now=AT + timedelta(hours=24)),
        found(replace(twice, tried=frozenset({("cancel_event", "a")}))),
    ):
        repair, automatic, facts = proposed(finding)
        assert (repair, automatic) == ("correct_meter", False)
        ((name, facts),) = facts.items()
        assert name == facts["identifier"]
        assert (facts["value"], facts["occurred_at"]) == (-100, AT.isoformat())
        assert facts["corrects"] == ["a"]


def test_a_second_correction_of_a_minute_has_a_name_of_its_own() -> None:
    first = next(iter(proposed(found(charge(5)))[2]))
    base = first.removesuffix(correction_identifier("", 1))
    tried = frozenset({("correct_meter", first)})
    assert list(proposed(found(charge(9, tried=tried)))[2]) == [correction_identifier(base, 2)]


@pytest.mark.parametrize(
    ("counted", "amount"), [(0, 100), (200, -100), (250, -150)]
)  # lost, counted twice, from outside
@pytest.mark.parametrize(
    ("collects", "age"), [(Collects.FINAL_INVOICE, DAY / 4), (Collects.OPEN_INVOICE, 34 * DAY)]
)
def test_where_the_meter_moves_no_money_any_more_the_next_statement_does(
    counted: int, amount: int, collects: Collects, age: timedelta
) -> None:
    finding = found(charge(counted, A, collects=collects), now=AT + age)
    repair, automatic, facts = proposed(finding)
    assert (repair, automatic, list(facts)) == ("collect_later", False, ["acme"])
    assert facts["acme"]["amount_nano_usd"] == amount


@pytest.mark.parametrize("counted", [0, 200, 250])
def test_a_meter_without_a_price_is_let_be_once_stripe_takes_nothing(counted: int) -> None:
    finding = found(minute(counted, A), now=AT + 34 * DAY)
    assert finding.explained
    assert finding.proposal is None


def test_what_a_statement_collects_is_collected_once() -> None:
    late = replace(A, on_statement=True)
    final = charge(0, late, collects=Collects.FINAL_INVOICE)
    assert found(final).explained
    booked = charge(0, A, collects=Collects.FINAL_INVOICE, booked_nano_usd=100)
    assert found(booked).explained
    half = found(replace(booked, booked_nano_usd=60))
    assert proposed(half)[2]["acme"]["amount_nano_usd"] == 40


def test_a_look_at_another_time_meets_the_same_place() -> None:
    early, late = found(charge(200, A)), found(charge(200, A), now=AT + 40 * DAY)
    assert early.key == late.key
    assert early.key.endswith(f"customer_id=acme,meter={CHARGE_METER}")
