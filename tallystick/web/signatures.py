"""Whether a webhook is Stripe's: the signature over the raw body, and how old it is.

The comparison is the SDK's. It checks one secret, lets a signature of tomorrow pass and reads the
first timestamp of several (facts on Stripe, 'Webhooks'); so here every secret gets its turn, since
two hold while one is rolled and each endpoint has its own, a header with two timestamps is refused,
and the bounds are kept on both sides: without them a webhook that somebody once saw could be
played back for ever.
"""

import re
from collections.abc import Sequence
from enum import StrEnum

from pydantic import SecretStr
from stripe import SignatureVerificationError, WebhookSignature

TOLERANCE = 300
"""Seconds that a signature may be old or ahead. Stripe signs each redelivery anew."""

_TIMESTAMP = re.compile(r"[0-9]{1,12}")


class Rejection(StrEnum):
    """Why a webhook was not taken."""

    TOO_LARGE = "too_large"
    UNSIGNED = "unsigned"
    MALFORMED = "malformed"
    FORGED = "forged"
    STALE = "stale"
    FUTURE = "future"


class RejectedError(Exception):
    """A webhook is not taken; the message is for whoever sent it."""

    def __init__(self, reason: Rejection, message: str):
        super().__init__(message)
        self.reason = reason


def verify(body: bytes, header: str | None, secrets: Sequence[SecretStr], now: float) -> None:
    """Return if one of `secrets` signed `body` around `now`, in seconds since the epoch.

    Raises:
        RejectedError: saying why not.
    """
    if not header:
        raise RejectedError(Rejection.UNSIGNED, "the header Stripe-Signature is missing")
    fields = [field.partition("=") for field in header.split(",")]
    times = [value for key, _, value in fields if key == "t"]
    if len(times) != 1 or not _TIMESTAMP.fullmatch(times[0]):
        raise RejectedError(
            Rejection.MALFORMED, "Stripe-Signature must be t=SECONDS,v1=SIGNATURE[,v1=...]"
        )
    if not any(_signed(body, header, secret) for secret in secrets):
        raise RejectedError(Rejection.FORGED, "no signature fits the body and a secret of ours")
    age = now - int(times[0])
    if age > TOLERANCE:
        raise RejectedError(Rejection.STALE, f"it was signed {age:.0f} seconds ago")
    if age < -TOLERANCE:
        raise RejectedError(Rejection.FUTURE, f"it was signed {-age:.0f} seconds ahead of now")


def _signed(body: bytes, header: str, secret: SecretStr) -> bool:
    try:
        return WebhookSignature.verify_header(  # pyright: ignore[reportUnknownMemberType]
            body, header, secret.get_secret_value()
        )
    except (SignatureVerificationError, UnicodeDecodeError):
        return False
