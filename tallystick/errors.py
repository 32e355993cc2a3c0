"""Every way a request can fail, in one table: what it is called, and what is to be done about it.

Three things read this table and nothing else decides: activities turn what an SDK raised into a
Temporal failure, the workflow chooses between retrying, parking and giving up, and the client
turns a failure back into a typed exception. The table is keyed by HTTP status and the provider's
own error type, not by SDK classes, so workflow code can import it.

The rule that costs most when it is wrong: a spend-limit 429 is not a rate limit (it carries no
`retry-after` and never clears by waiting), and an outcome we do not know is `indeterminate`,
never a failure that "did not happen". Sources: facts on Claude, 'Errors', and Stripe, 'Errors'.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar


class Action(StrEnum):
    """What becomes of a step that failed."""

    RETRY = "retry"
    """Temporal tries again with backoff; the trouble passes by itself."""
    PARK = "park"
    """Only a person can mend it: the workflow waits visibly (`BillingState` = stuck)."""
    REFUSE = "refuse"
    """Final, the request is at fault, the caller is told why; no Claude usage is billed for it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One row of the table.

    `type` is the Temporal error type. `indeterminate` says that the other side may have done the
    work although we have no answer. `alarm` says that an operator should hear of it.
    """

    type: str
    action: Action
    indeterminate: bool = False
    alarm: bool = False


# --- Refused by ourselves, before or instead of a provider call ---------------------------------
INVALID_REQUEST = Failure("InvalidRequest", Action.REFUSE)
UNKNOWN_CUSTOMER = Failure("UnknownCustomer", Action.REFUSE)
CUSTOMER_SUSPENDED = Failure("CustomerSuspended", Action.REFUSE)
REQUEST_ID_REUSED = Failure("RequestIdReused", Action.REFUSE)
ALREADY_BILLED = Failure("AlreadyBilled", Action.REFUSE)
UNKNOWN_MODEL = Failure("UnknownModel", Action.REFUSE)
TOO_MANY_INPUT_TOKENS = Failure("TooManyInputTokens", Action.REFUSE)
COST_CEILING_EXCEEDED = Failure("CostCeilingExceeded", Action.REFUSE)
SPEND_CAP_REACHED = Failure("SpendCapReached", Action.REFUSE)
BALANCE_EXHAUSTED = Failure("BalanceExhausted", Action.REFUSE)
CONVERSATION_CAP_REACHED = Failure("ConversationCapReached", Action.REFUSE)
ROOM_OCCUPIED = Failure("RoomOccupied", Action.RETRY)
OUTCOME_UNKNOWN = Failure("ClaudeOutcomeUnknown", Action.REFUSE, indeterminate=True, alarm=True)
REPLY_TOO_LARGE = Failure("ReplyTooLarge", Action.REFUSE, alarm=True)
CANCELLED = Failure("RequestCancelled", Action.REFUSE)

# --- Claude ---------------------------------------------------------------------------------------
CLAUDE_REJECTED = Failure("ClaudeRejected", Action.REFUSE)
CLAUDE_FORBIDDEN = Failure("ClaudeForbidden", Action.REFUSE, alarm=True)
CLAUDE_PAYMENT_REQUIRED = Failure("ClaudePaymentRequired", Action.PARK, alarm=True)
CLAUDE_SPEND_LIMIT = Failure("ClaudeSpendLimit", Action.PARK, alarm=True)
CLAUDE_RATE_LIMITED = Failure("ClaudeRateLimited", Action.RETRY)
CLAUDE_OVERLOADED = Failure("ClaudeOverloaded", Action.RETRY)
CLAUDE_UNAVAILABLE = Failure("ClaudeUnavailable", Action.RETRY)
CLAUDE_NO_ANSWER = Failure("ClaudeNoAnswer", Action.RETRY, indeterminate=True)
CLAUDE_STREAM_BROKEN = Failure("ClaudeStreamBroken", Action.RETRY, indeterminate=True)

# --- Message batches at Claude --------------------------------------------------------------------
BATCH_OPEN = Failure("BatchOpen", Action.RETRY)
"""No trouble: the provider is still at work. Looking again by a retry adds nothing to a history."""
BATCH_UNKNOWN = Failure("BatchOutcomeUnknown", Action.RETRY, indeterminate=True)
BATCH_RESULTS_CUT = Failure("BatchResultsCut", Action.RETRY)
BATCH_MISSING = Failure("BatchMissing", Action.PARK, alarm=True)
BATCH_MISCOUNTED = Failure("BatchMiscounted", Action.PARK, alarm=True)
BATCH_RESULTS_ELSEWHERE = Failure("BatchResultsElsewhere", Action.PARK, alarm=True)

# --- Anthropic's reports --------------------------------------------------------------------------
REPORT_UNSETTLED = Failure("ReportUnsettled", Action.RETRY)
"""No trouble: the report has not got so far yet, and is looked at again."""
REPORT_FORBIDDEN = Failure("ReportForbidden", Action.PARK, alarm=True)
REPORT_UNREADABLE = Failure("ReportUnreadable", Action.PARK, alarm=True)
REPORT_CUT = Failure("ReportCut", Action.RETRY)

# --- Stripe ---------------------------------------------------------------------------------------
STRIPE_NO_ANSWER = Failure("StripeNoAnswer", Action.RETRY, indeterminate=True)
STRIPE_RATE_LIMITED = Failure("StripeRateLimited", Action.RETRY)
STRIPE_UNAVAILABLE = Failure("StripeUnavailable", Action.RETRY, indeterminate=True)
STRIPE_REJECTED = Failure("StripeRejected", Action.PARK, alarm=True)
STRIPE_FORBIDDEN = Failure("StripeForbidden", Action.PARK, alarm=True)
CUSTOMER_UNMAPPED = Failure("CustomerUnmapped", Action.PARK, alarm=True)
PAYMENT_DECLINED = Failure("PaymentDeclined", Action.PARK, alarm=True)
METER_HELD = Failure("MeterHeld", Action.RETRY)
METER_WINDOW_PASSED = Failure("MeterWindowPassed", Action.PARK, alarm=True)
METER_OUTCOME_UNKNOWN = Failure("MeterOutcomeUnknown", Action.PARK, indeterminate=True, alarm=True)

# --- Our own house --------------------------------------------------------------------------------
LEDGER_UNAVAILABLE = Failure("LedgerUnavailable", Action.RETRY)
TEMPORAL_UNAVAILABLE = Failure("TemporalUnavailable", Action.RETRY, indeterminate=True)
NOTIFIER_UNAVAILABLE = Failure("NotifierUnavailable", Action.RETRY, indeterminate=True)
PAYLOAD_UNREADABLE = Failure("PayloadUnreadableError", Action.RETRY, alarm=True)
"""Its key or its bytes are not here; a worker that has them goes on. Named as Temporal's SDK names
what a converter raises: after the exception."""

FAILURES: Mapping[str, Failure] = {
    value.type: value for value in list(globals().values()) if isinstance(value, Failure)
}
"""Every row by its Temporal error type."""

NOT_RETRYABLE: list[str] = [
    *sorted(f.type for f in FAILURES.values() if f.action is not Action.RETRY),
    "PayloadsTooLarge",  # an oversized result never gets smaller (facts on Temporal, trap 1)
]
"""Types that end an activity at once; what then happens is the workflow's choice."""

_SPEND_LIMITS = {"enforced_spend_limit_reached", "contract_spend_limit_reached"}


def classify_claude(status: int | None, error_code: str | None = None) -> Failure:
    """Name the failure behind an answer from Claude's API.

    Args:
        status: the HTTP status; None when there was no answer at all.
        error_code: the provider's `error_code`, else its error `type`, when the body told one.
    """
    if status is None:
        return CLAUDE_NO_ANSWER
    if status == 200:  # noqa: PLR2004
        return CLAUDE_STREAM_BROKEN  # an `error` event inside a stream that had begun
    if status == 429:  # noqa: PLR2004
        return CLAUDE_SPEND_LIMIT if error_code in _SPEND_LIMITS else CLAUDE_RATE_LIMITED
    by_status = {
        401: CLAUDE_FORBIDDEN,
        402: CLAUDE_PAYMENT_REQUIRED,
        403: CLAUDE_FORBIDDEN,
        408: CLAUDE_UNAVAILABLE,
        409: CLAUDE_UNAVAILABLE,
        529: CLAUDE_OVERLOADED,
    }
    if status in by_status:
        return by_status[status]
    return CLAUDE_UNAVAILABLE if status >= 500 else CLAUDE_REJECTED  # noqa: PLR2004


def classify_stripe(status: int | None) -> Failure:
    """Name the failure behind an answer from Stripe (duplicates are not failures and not here).

    Args:
        status: the HTTP status; None when there was no answer at all.
    """
    if status is None:
        return STRIPE_NO_ANSWER
    if status == 429:  # noqa: PLR2004
        return STRIPE_RATE_LIMITED
    if status in (401, 403):
        return STRIPE_FORBIDDEN
    if status == 402:  # noqa: PLR2004
        return PAYMENT_DECLINED  # nobody's bug: the course of an unpaid invoice is dunning
    # A cut or empty body arrives as an APIError with the status of success.
    if status == 409 or status >= 500 or status < 300:  # noqa: PLR2004
        return STRIPE_UNAVAILABLE
    return STRIPE_REJECTED


class TallystickError(Exception):
    """Base of what `tallystick.Client` raises; `details` is what the ledger knows of the matter."""

    types: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, message: str, *, type: str = "", details: dict[str, Any] | None = None):
        super().__init__(message)
        self.type = type or next(iter(sorted(self.types)), self.__class__.__name__)
        self.details = details or {}


class InvalidRequestError(TallystickError):
    """The request cannot be served as it stands; the message names the field."""

    types = frozenset({INVALID_REQUEST.type, UNKNOWN_MODEL.type})


class UnknownCustomerError(TallystickError):
    """No customer with this id; `tallystick customer add` makes one."""

    types = frozenset({UNKNOWN_CUSTOMER.type})


class CustomerSuspendedError(TallystickError):
    """The customer may not spend at present; the message says why and what restores it."""

    types = frozenset({CUSTOMER_SUSPENDED.type})


class RequestIdReusedError(TallystickError):
    """This request id was used before with a different body."""

    types = frozenset({REQUEST_ID_REUSED.type})


class AlreadyBilledError(TallystickError):
    """Answered and billed earlier, the reply no longer kept; `details['bill']` has the bill."""

    types = frozenset({ALREADY_BILLED.type})


class GuardError(TallystickError):
    """A guard refused the request before a token was spent; the message has the estimate."""

    types = frozenset({TOO_MANY_INPUT_TOKENS.type, COST_CEILING_EXCEEDED.type})


class LimitReachedError(TallystickError):
    """A spend cap, a prepaid balance or a conversation cap leaves no room for this request."""

    types = frozenset(
        {SPEND_CAP_REACHED.type, BALANCE_EXHAUSTED.type, CONVERSATION_CAP_REACHED.type}
    )


class ClaudeError(TallystickError):
    """Claude refused or could not serve the request, for good."""

    types = frozenset(
        {CLAUDE_REJECTED.type, CLAUDE_FORBIDDEN.type, OUTCOME_UNKNOWN.type, REPLY_TOO_LARGE.type}
    )


class RequestCancelledError(TallystickError):
    """The request was cancelled before Claude was called; nothing was billed."""

    types = frozenset({CANCELLED.type})


class ReplyPendingError(TallystickError):
    """Your patience ended first; the request goes on, ask again with the same id and body."""


class UnavailableError(TallystickError):
    """Temporal could not be reached; the message names the setting."""


class PayloadUnreadableError(TallystickError):
    """Stored content cannot be read by this process; the message has the setting and the remedy."""


_BY_TYPE = {type_: cls for cls in TallystickError.__subclasses__() for type_ in cls.types}


def error_from(type_: str | None, message: str, details: dict[str, Any]) -> TallystickError:
    """Rebuild the typed exception from a Temporal failure's type, message and details."""
    return _BY_TYPE.get(type_ or "", TallystickError)(message, type=type_ or "", details=details)
