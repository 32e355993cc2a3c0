"""The error table, row by row: what is retried, what is told to an operator, what a caller gets.

The expectations are written from facts on Claude, 'Errors', and facts on Stripe, 'Errors', not from
the code.
"""

import pytest

from tallystick import errors
from tallystick.errors import (
    FAILURES,
    NOT_RETRYABLE,
    Action,
    Failure,
    TallystickError,
    classify_claude,
    classify_stripe,
    error_from,
)

CLAUDE = [
    # status, error code, type, action, outcome unknown, alarm
    (400, "invalid_request_error", "ClaudeRejected", "refuse", False, False),
    (401, "authentication_error", "ClaudeForbidden", "refuse", False, True),
    (402, "billing_error", "ClaudePaymentRequired", "park", False, True),
    (403, "permission_error", "ClaudeForbidden", "refuse", False, True),
    (404, "not_found_error", "ClaudeRejected", "refuse", False, False),
    (408, None, "ClaudeUnavailable", "retry", False, False),
    (409, None, "ClaudeUnavailable", "retry", False, False),
    (412, None, "ClaudeRejected", "refuse", False, False),
    (413, "request_too_large", "ClaudeRejected", "refuse", False, False),
    (422, None, "ClaudeRejected", "refuse", False, False),
    (429, "rate_limit_error", "ClaudeRateLimited", "retry", False, False),
    (429, "ramp_limit_exceeded", "ClaudeRateLimited", "retry", False, False),
    (429, None, "ClaudeRateLimited", "retry", False, False),
    (429, "enforced_spend_limit_reached", "ClaudeSpendLimit", "park", False, True),
    (429, "contract_spend_limit_reached", "ClaudeSpendLimit", "park", False, True),
    (431, None, "ClaudeRejected", "refuse", False, False),
    (500, "api_error", "ClaudeUnavailable", "retry", False, False),
    (502, None, "ClaudeUnavailable", "retry", False, False),
    (503, None, "ClaudeUnavailable", "retry", False, False),
    (504, "timeout_error", "ClaudeUnavailable", "retry", False, False),
    (529, "overloaded_error", "ClaudeOverloaded", "retry", False, False),
    (200, "overloaded_error", "ClaudeStreamBroken", "retry", True, False),
    (None, None, "ClaudeNoAnswer", "retry", True, False),
]

STRIPE = [
    (None, "StripeNoAnswer", "retry", True, False),
    (200, "StripeUnavailable", "retry", True, False),
    (204, "StripeUnavailable", "retry", True, False),
    (400, "StripeRejected", "park", False, True),
    (401, "StripeForbidden", "park", False, True),
    (402, "PaymentDeclined", "park", False, True),
    (403, "StripeForbidden", "park", False, True),
    (404, "StripeRejected", "park", False, True),
    (409, "StripeUnavailable", "retry", True, False),
    (429, "StripeRateLimited", "retry", False, False),
    (500, "StripeUnavailable", "retry", True, False),
    (502, "StripeUnavailable", "retry", True, False),
    (503, "StripeUnavailable", "retry", True, False),
]

EXCEPTIONS = {
    "InvalidRequest": "InvalidRequestError",
    "UnknownModel": "InvalidRequestError",
    "UnknownCustomer": "UnknownCustomerError",
    "CustomerSuspended": "CustomerSuspendedError",
    "RequestIdReused": "RequestIdReusedError",
    "AlreadyBilled": "AlreadyBilledError",
    "TooManyInputTokens": "GuardError",
    "CostCeilingExceeded": "GuardError",
    "SpendCapReached": "LimitReachedError",
    "BalanceExhausted": "LimitReachedError",
    "ConversationCapReached": "LimitReachedError",
    "ClaudeOutcomeUnknown": "ClaudeError",
    "ReplyTooLarge": "ClaudeError",
    "ClaudeRejected": "ClaudeError",
    "ClaudeForbidden": "ClaudeError",
    "RequestCancelled": "RequestCancelledError",
}
"""Every refusal has a class of its own; what is retried or parked never reaches a caller."""


@pytest.mark.parametrize(("status", "code", "name", "action", "unknown", "alarm"), CLAUDE)
def test_an_answer_of_claude_is_named(*, status, code, name, action, unknown, alarm) -> None:
    assert classify_claude(status, code) == Failure(name, Action(action), unknown, alarm)


@pytest.mark.parametrize(("status", "name", "action", "unknown", "alarm"), STRIPE)
def test_an_answer_of_stripe_is_named(*, status, name, action, unknown, alarm) -> None:
    assert classify_stripe(status) == Failure(name, Action(action), unknown, alarm)


@pytest.mark.parametrize("status", [None, *range(200, 600)])
def test_no_status_is_without_a_row_and_no_failure_of_stripe_blames_the_request(
    status: int | None,
) -> None:
    assert classify_claude(status) in FAILURES.values()
    # Metering comes after the answer: it is tried again or waits for a person, and is never lost.
    assert classify_stripe(status).action in (Action.RETRY, Action.PARK)


def test_every_row_has_a_type_of_its_own() -> None:
    rows = [value for value in vars(errors).values() if isinstance(value, Failure)]
    assert len({row.type for row in rows}) == len(rows) == len(FAILURES)
    assert all(FAILURES[row.type] is row for row in rows)


@pytest.mark.parametrize("row", FAILURES.values(), ids=lambda row: row.type)
def test_temporal_retries_what_passes_by_itself_and_nothing_else(row: Failure) -> None:
    assert (row.type in NOT_RETRYABLE) == (row.action is not Action.RETRY)


@pytest.mark.parametrize("row", FAILURES.values(), ids=lambda row: row.type)
def test_whatever_waits_for_a_person_raises_an_alarm(row: Failure) -> None:
    assert row.alarm or row.action is not Action.PARK


def test_an_oversized_payload_is_not_tried_again() -> None:
    assert "PayloadsTooLarge" in NOT_RETRYABLE


@pytest.mark.parametrize("row", FAILURES.values(), ids=lambda row: row.type)
def test_a_caller_gets_the_documented_exception(row: Failure) -> None:
    error = error_from(row.type, "why", {"refused_at": "then"})
    expected = EXCEPTIONS.get(row.type, "TallystickError")
    assert type(error) is getattr(errors, expected)
    assert (error.type, str(error), error.details) == (row.type, "why", {"refused_at": "then"})


def test_every_refusal_has_a_class_of_its_own() -> None:
    assert EXCEPTIONS.keys() == {row.type for row in FAILURES.values() if row.action == "refuse"}


@pytest.mark.parametrize("type_", ["FromANewerVersion", "", None])
def test_a_type_nobody_knows_is_still_an_error_of_ours(type_: str | None) -> None:
    error = error_from(type_, "why", {})
    assert type(error) is TallystickError
    assert str(error) == "why"


def test_a_type_belongs_to_one_class() -> None:
    owned = [type_ for cls in TallystickError.__subclasses__() for type_ in cls.types]
    assert len(owned) == len(set(owned))
    assert set(owned) <= FAILURES.keys()
