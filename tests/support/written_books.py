"""Books written by hand, right to the token, for tests that make one thing of them wrong."""

from datetime import UTC, datetime

from scripts.chaos_parts.books import Books, Row
from tallystick.metering import CHARGE_METER, meter_identifier, token_meter

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
            "status": "priced",
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
                "fault": None,
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


def change(rows: list[Row], number: int, **values: object) -> None:
    rows[number] = {**rows[number], **values}
