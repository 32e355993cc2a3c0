"""Lines of `tallystick rate`: rated by the code that bills, or returned with their reason."""

import json
from typing import Any

import pytest

from tallystick.pricing import rate_line, rate_text

from .replies import reply, usage

MESSAGE = reply("claude-opus-5", usage(1_000, 100, read=3))
LINE: dict[str, Any] = {"id": "r-1", "at": "2026-11-20T12:00:00Z", "batch": False}


def test_a_line_comes_back_rated():
    # 1,000x5 + 100x25 + 3x0.50 = 5,000 + 2,500 + 1.5 = 7,501.5 millionths
    assert rate_line(LINE | {"message": MESSAGE}) == {
        "id": "r-1",
        "status": "priced",
        "cost_usd": "0.0075015",
        "lines": [
            {
                "kind": "input",
                "model": "claude-opus-5",
                "quantity": 1_000,
                "unit_usd": "0.000005",
                "amount_usd": "0.005",
            },
            {
                "kind": "output",
                "model": "claude-opus-5",
                "quantity": 100,
                "unit_usd": "0.000025",
                "amount_usd": "0.0025",
            },
            {
                "kind": "cache_read",
                "model": "claude-opus-5",
                "quantity": 3,
                "unit_usd": "0.0000005",
                "amount_usd": "0.0000015",
            },
        ],
        "reason": "",
    }


def test_a_batch_line_costs_half():
    assert rate_line(LINE | {"batch": True, "message": MESSAGE})["cost_usd"] == "0.00375075"


def test_batch_may_be_left_out():
    line = {"id": 7, "at": LINE["at"], "message": MESSAGE}
    answer = rate_line(line)
    assert (answer["id"], answer["cost_usd"]) == (7, "0.0075015")


@pytest.mark.parametrize(
    ("message", "status", "cost"),
    [
        (MESSAGE | {"stop_reason": "refusal", "content": []}, "not_billed", "0"),
        (MESSAGE | {"model": "claude-opus-99"}, "unpriced", None),
        (MESSAGE | {"stop_reason": None}, "indeterminate", None),
    ],
)
def test_every_status_comes_back_with_its_reason(
    message: dict[str, Any], status: str, cost: str | None
):
    answer = rate_line(LINE | {"message": message})
    assert (answer["status"], answer["cost_usd"], answer["lines"]) == (status, cost, [])
    assert answer["reason"]


@pytest.mark.parametrize(
    "at",
    [
        "2026-11-20T12:00:00Z",
        "2026-11-20t12:00:00z",
        "2026-11-20 12:00:00+00:00",
        "2026-11-20T12:00:00.123456789-08:00",
    ],
)
def test_every_rfc_3339_instant_is_understood(at: str):
    assert rate_line(LINE | {"at": at, "message": MESSAGE})["status"] == "priced"


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        (None, "at is missing or not text"),
        (1_763_640_000, "at is missing or not text"),
        ("2026-11-20", "at is not an RFC 3339 instant"),
        ("2026-11-20T12:00Z", "at is not an RFC 3339 instant"),
        ("yesterday", "at is not an RFC 3339 instant"),
        ("2026-11-20T12:00:00Z\n", "at is not an RFC 3339 instant"),
        ("2026-11-20T12:00:00", "at has no offset"),
        ("2026-02-30T12:00:00Z", "at is not an instant of the calendar"),
        ("2026-11-20T12:00:60Z", "at is not an instant of the calendar"),
    ],
)
def test_a_bad_instant_is_named(at: object, reason: str):
    answer = rate_line(LINE | {"at": at, "message": MESSAGE})
    assert answer["id"] == "r-1"
    assert answer["status"] == "unpriced"
    assert reason in answer["reason"]


@pytest.mark.parametrize(
    ("line", "name", "reason"),
    [
        ([], None, "the line is not an object"),
        (None, None, "the line is not an object"),
        ({}, None, "id is missing"),
        ({"id": None}, None, "id is missing"),
        ({"id": True}, None, "id is missing"),
        ({"id": 1.5}, None, "id is missing"),
        ({"id": "a", "at": LINE["at"], "batch": 1}, "a", "batch is neither true nor false"),
        ({"id": "a", "at": LINE["at"], "batch": None}, "a", "batch is neither true nor false"),
        (LINE, "r-1", "message is missing"),
        (LINE | {"message": "text"}, "r-1", "message is missing or not an object"),
    ],
)
def test_a_bad_line_is_named(line: object, name: object, reason: str):
    answer = rate_line(line)
    assert (answer["id"], answer["status"], answer["cost_usd"]) == (name, "unpriced", None)
    assert reason in answer["reason"]


def test_text_is_parsed_first():
    text = json.dumps(LINE | {"message": MESSAGE})
    assert rate_text(text) == rate_text(text.encode()) == rate_line(json.loads(text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{'id': 1}",
        '{"id": "a", "usage": NaN}',
        '{"id": "a", "usage": -Infinity}',
        b"\xff\xfe{}",
        "[" * 100_000,
        '{"id": ' + "9" * 5_000 + "}",
    ],
)
def test_what_is_not_json_is_said_to_be_none(text: str | bytes):
    answer = rate_text(text)
    assert (answer["id"], answer["status"]) == (None, "unpriced")
    assert answer["reason"].startswith("the line is not JSON")


def test_a_count_that_is_no_number_is_named():
    message = reply("claude-opus-5", usage(1, 1) | {"input_tokens": float("inf")})
    assert "usage.input_tokens" in rate_line(LINE | {"message": message})["reason"]
