"""The judge must be able to condemn: each of these books has one crime in it, and is told which."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pytest

from scripts.chaos_parts.books import Books, Key, Row
from scripts.chaos_parts.heard import Heard
from scripts.chaos_parts.verdict import PROMISES, Verdict, judge, judge_naive
from tests.support.written_books import attempt, call, change, right_books

ONE, TWO = ("acme", "one"), ("acme", "two")


@dataclass
class Case:
    """Two answered requests, as `right_books` has them, and what their callers have heard."""

    books: Books = field(default_factory=right_books)
    heard: dict[Key, Heard | None] = field(
        default_factory=lambda: {ONE: Heard("msg_1"), TWO: Heard("msg_2")}
    )
    pending: Iterable[Key] = ()

    def judged(self) -> Verdict:
        return judge(self.books, self.heard, set(self.pending))


def crimes(verdict: Verdict) -> set[str]:
    return {name for name in PROMISES if getattr(verdict, name)}


def test_right_books_are_acquitted() -> None:
    verdict = Case().judged()
    assert verdict.holds
    assert verdict.told == []
    assert (verdict.asked, verdict.answered, verdict.billed_once) == (2, 2, 2)
    assert (verdict.calls, verdict.paid_again) == (3, 1)


def forget(case: Case) -> None:
    case.heard[ONE] = None


def wait(case: Case) -> None:
    case.heard[ONE], case.pending = None, [ONE]


WRONGS: dict[str, tuple[Callable[[Case], object], str]] = {
    "a caller who has heard nothing": (forget, "lost"),
    "a failure without a reason": (lambda c: c.heard.update({ONE: Heard(told="oh")}), "lost"),
    "an answer without a bill": (lambda c: c.books.records.pop(), "lost"),
    "a bill for one who was told that it failed": (
        lambda c: c.heard.update({ONE: Heard(refused="ClaudeRejected")}), "lost",
    ),
    "a bill for another answer": (lambda c: c.heard.update({ONE: Heard("msg_9")}), "lost"),
    "a caller who still waits": (wait, "pending"),
    "two bills": (
        lambda c: c.books.records.append({**c.books.records[0], "usage_record_id": 9}),
        "billed_twice",
    ),
    "an event that is not acknowledged": (
        lambda c: change(c.books.outbox, 0, delivered_at=None), "half_billed",
    ),
    "an event that Stripe does not have": (lambda c: c.books.accepted.pop(0), "half_billed"),
    "an event without a bill": (
        lambda c: c.books.accepted.append({**c.books.accepted[0], "identifier": "other"}),
        "half_billed",
    ),
    "an event that counts twice": (
        lambda c: c.books.accepted.append(copy.copy(c.books.accepted[0])), "metered_twice",
    ),
    "a call that no attempt tells of": (
        lambda c: c.books.calls.append(call("two", "msg_x", input=5)), "unaccounted",
    ),
    "a call for nobody": (
        lambda c: c.books.calls.append(call("three", "msg_3", input=1)), "unaccounted",
    ),
    "a token too many": (lambda c: change(c.books.records, 0, input_tokens=11), "wrong"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONGS)
def test_one_wrong_row_is_condemned_for_what_it_is(name: str) -> None:
    commit, crime = WRONGS[name]
    case = Case()
    commit(case)
    verdict = case.judged()
    assert not verdict.holds
    assert crime in crimes(verdict)
    assert verdict.told
    # Sums go wrong with much of it; no promise is said to be broken that was not.
    assert crimes(verdict) - {"wrong"} <= {crime, "half_billed"}


def test_a_lost_call_of_a_request_that_was_refused_is_accounted_for_by_its_attempt() -> None:
    case = Case()
    case.heard["acme", "three"] = Heard(refused="ClaudeRejected")
    case.books.calls.append(call("three", "msg_3", input=1))
    case.books.attempts.append(attempt("three", attempt_id=8, number=1, outcome="indeterminate"))
    case.books.attempts.append(attempt("three", attempt_id=9, number=2, outcome="failed"))
    verdict = case.judged()
    assert verdict.holds
    assert verdict.refused == {"ClaudeRejected": 1}
    case.books.calls.append(call("three", "msg_4", input=1))
    assert case.judged().unaccounted == 1


def test_what_stripe_misplaced_after_its_receipt_is_counted_apart() -> None:
    case = Case()
    accepted = case.books.accepted
    change(accepted, 0, effective=False, rejected="lost", fault="lost_event")
    change(accepted, 1, fault="counted_twice")
    accepted.append(copy.copy(accepted[1]))
    change(accepted, 2, customer="cus_9", fault="wrong_customer")
    verdict = case.judged()
    assert verdict.holds
    assert verdict.misplaced == 3
    # The excuse is the fault's, and of no other event.
    change(accepted, 3, effective=False, rejected="lost")
    assert crimes(case.judged()) == {"half_billed", "wrong"}


# --- The baseline ---------------------------------------------------------------------------------
def events(request_id: str, *meters: str) -> list[Row]:
    return [
        {
            "identifier": f"{request_id}-{number}",
            "event_name": meter,
            "customer": "cus_1",
            "effective": True,
            "fault": None,
            "besides": {"request_id": request_id},
        }
        for number, meter in enumerate(meters)
    ]


@pytest.mark.parametrize(
    ("metered", "heard", "crime"),
    [
        (("in", "out"), Heard("m"), None),
        ((), Heard(refused="APIError"), None),
        ((), Heard("m"), "lost"),
        ((), None, "lost"),
        (("in",), Heard("m"), "half_billed"),
        (("in", "out"), Heard(refused="APIError"), "half_billed"),
        (("in", "out", "in", "out"), Heard("m"), "billed_twice"),
    ],
)
def test_the_baseline_is_judged_by_its_events(
    metered: tuple[str, ...], heard: Heard | None, crime: str | None
) -> None:
    verdict = judge_naive([call("one", "m", input=1)], events("one", *metered), {ONE: heard}, 2)
    assert crimes(verdict) - {"metered_twice"} == ({crime} if crime else set())
    assert verdict.billed_once == (crime is None and metered != ())


def test_a_call_more_than_one_for_a_request_is_paid_again_and_traced_nowhere() -> None:
    calls = [call("one", "m1", input=1), call("one", "m2", input=1)]
    verdict = judge_naive(calls, events("one", "in", "out"), {ONE: Heard("m2")}, 2)
    assert (verdict.paid_again, verdict.unaccounted) == (1, 1)
