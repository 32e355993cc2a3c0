"""The tally must be able to fail: each of these books is right but for one thing."""

import copy
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from tallystick.metering import CHARGE_METER, meter_identifier, token_meter
from tests.support.tally import Books, Row, TallyError, differences, must_tally

SERVED_AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
KINDS = ("input", "output", "cache_write_5m", "cache_write_1h", "cache_read")


def right_books() -> Books:
    """Two answered requests, the second after a call whose reply was lost."""
    books = Books([], [], [], [], [], {"acme": "cus_1"})
    served(books, "one", attempt_id=1, message_id="msg_1", input=10, output=20)
    books.attempts.append(attempt("two", attempt_id=2, number=1, outcome="indeterminate"))
    books.calls.append(call("two", "msg_lost", input=5, output=6))
    served(books, "two", attempt_id=3, number=2, message_id="msg_2", input=5, output=7)
    return books


def served(
    books: Books,
    request_id: str,
    *,
    attempt_id: int,
    message_id: str,
    number: int = 1,
    **tokens: int,
) -> None:
    books.calls.append(call(request_id, message_id, **tokens))
    books.attempts.append(
        attempt(request_id, attempt_id=attempt_id, number=number, message_id=message_id)
    )
    charge = 1_000 * sum(tokens.values())
    books.records.append(
        {
            "usage_record_id": attempt_id,
            "customer_id": "acme",
            "request_id": request_id,
            "attempt_id": attempt_id,
            "message_id": message_id,
            "charge_nano_usd": charge,
            **{f"{kind}_tokens": tokens.get(kind, 0) for kind in KINDS},
        }
    )
    values = {CHARGE_METER: charge, **{token_meter(kind): n for kind, n in tokens.items()}}
    for meter, value in values.items():
        books.outbox.append(
            {
                "usage_record_id": attempt_id,
                "customer_id": "acme",
                "request_id": request_id,
                "meter": meter,
                "value": value,
                "occurred_at": SERVED_AT,
                "delivered_at": SERVED_AT,
            }
        )
        books.accepted.append(
            {
                "identifier": meter_identifier("acme", request_id, meter),
                "event_name": meter,
                "customer": "cus_1",
                "value": str(value),
                "timestamp": int(SERVED_AT.timestamp()),
                "effective": True,
            }
        )


def call(request_id: str, message_id: str, **tokens: int) -> Row:
    billable = {kind: tokens.get(kind, 0) for kind in KINDS}
    return {"message_id": message_id, "body_sha256": f"body of {request_id}", "billable": billable}


def attempt(
    request_id: str,
    *,
    attempt_id: int,
    number: int,
    outcome: str = "succeeded",
    message_id: str | None = None,
) -> Row:
    return {
        "attempt_id": attempt_id,
        "customer_id": "acme",
        "request_id": request_id,
        "number": number,
        "outcome": outcome,
        "message_id": message_id,
    }


def test_right_books_tally() -> None:
    must_tally(right_books())


def change(rows: list[Row], number: int, **values: object) -> None:
    rows[number] = {**rows[number], **values}


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
        f"('acme', 'one'): {CHARGE_METER} counts 2 times at Stripe",
        "in total 42000 nano-USD in the ledger, 72000 at Stripe",
    ]
