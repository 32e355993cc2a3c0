"""The tally must be able to fail: each of these books is right but for one thing."""

import copy
from collections.abc import Callable

import pytest

from scripts.chaos_parts.books import Books
from scripts.chaos_parts.comparison import TallyError, differences, must_tally
from tallystick.metering import CHARGE_METER, token_meter
from tests.support.written_books import call, change, right_books


def test_right_books_tally() -> None:
    must_tally(right_books())


WRONGS: dict[str, Callable[[Books], object]] = {
    "a call without any attempt": lambda b: b.calls.append(call("three", "msg_3", input=1)),
    "a lost call without an attempt": lambda b: b.attempts.pop(1),
    "a second lost call behind one attempt": lambda b: b.calls.append(call("two", "msg_x")),
    "a reply that Claude never served": lambda b: b.calls.pop(0),
    "an attempt whose end nobody wrote down": lambda b: change(b.attempts, 1, outcome="started"),
    "an answer without a bill": lambda b: b.records.pop(),
    "two bills for one answer": lambda b: b.records.append({**b.records[0], "usage_record_id": 9}),
    "a bill for another attempt": lambda b: change(b.records, 0, attempt_id=3),
    "a token too many": lambda b: change(b.records, 0, input_tokens=11),
    "tokens of the wrong kind": lambda b: change(
        b.records, 0, cache_read_tokens=10, input_tokens=0
    ),
    "a nano-dollar too little": lambda b: change(b.records, 0, charge_nano_usd=29_999),
    "an event that was never queued": lambda b: b.outbox.pop(0),
    "an event that is not acknowledged": lambda b: change(b.outbox, 0, delivered_at=None),
    "an event that Stripe lost": lambda b: b.accepted.pop(0),
    "an event that Stripe rejected": lambda b: change(b.accepted, 0, effective=False),
    "an event that counts twice": lambda b: b.accepted.append(copy.copy(b.accepted[0])),
    "an event with another value": lambda b: change(b.accepted, 0, value="1"),
    "an event on another meter": lambda b: change(b.accepted, 1, event_name=token_meter("output")),
    "an event of another customer": lambda b: change(b.accepted, 0, customer="cus_2"),
    "an event of another time": lambda b: change(b.accepted, 0, timestamp=1),
    "an event from nowhere": lambda b: b.accepted.append({**b.accepted[0], "identifier": "other"}),
}


@pytest.mark.parametrize("wrong", WRONGS)
def test_one_wrong_row_is_found(wrong: str) -> None:
    books = right_books()
    WRONGS[wrong](books)
    with pytest.raises(TallyError):
        must_tally(books)


def test_a_difference_is_told_in_words() -> None:
    books = right_books()
    books.accepted.append(copy.copy(books.accepted[0]))
    assert differences(books) == [
        f"acme/one: {CHARGE_METER} counts 2 times at Stripe",
        "in total nano-USD: 42000 in the ledger, 72000 at Stripe",
    ]
