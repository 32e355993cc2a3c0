"""Why cards refuse, in Stripe's words, and which refusals no retry can mend.

A hard decline is final for that card: retries stay scheduled, but only another card is charged
(facts on Stripe, 'Subscriptions, invoices, dunning').
"""

from dataclasses import dataclass

from tallystick.sandbox.stripe.wire import Obj

_MESSAGES = {
    "authentication_required": "Your card was declined. This transaction requires authentication.",
    "expired_card": "Your card has expired.",
    "incorrect_cvc": "Your card's security code is incorrect.",
    "insufficient_funds": "Your card has insufficient funds.",
    "processing_error": "An error occurred while processing your card. Try again in a little bit.",
}
_OWN_CODES = {"authentication_required", "expired_card", "incorrect_cvc", "processing_error"}
_HARD = {
    "authentication_required",
    "highest_risk_level",
    "incorrect_number",
    "lost_card",
    "pickup_card",
    "revocation_of_all_authorizations",
    "revocation_of_authorization",
    "stolen_card",
    "transaction_not_allowed",
}

TEST_CARDS = {
    "visa": None,
    "visa_debit": None,
    "mastercard": None,
    "amex": None,
    "authenticationRequired": "authentication_required",
    "chargeCustomerFail": "generic_decline",
    "chargeDeclined": "generic_decline",
    "chargeDeclinedExpiredCard": "expired_card",
    "chargeDeclinedIncorrectCvc": "incorrect_cvc",
    "chargeDeclinedInsufficientFunds": "insufficient_funds",
    "chargeDeclinedLostCard": "lost_card",
    "chargeDeclinedProcessingError": "processing_error",
    "chargeDeclinedStolenCard": "stolen_card",
}
"""Stripe's test cards by what follows `pm_card_` or `tok_`, each with how it declines."""


@dataclass(frozen=True, slots=True)
class Decline:
    """A refusal by its decline code; one that is not known here reads as a generic decline."""

    decline_code: str

    @property
    def hard(self) -> bool:
        """Whether only another card can help."""
        return self.decline_code in _HARD

    @property
    def code(self) -> str:
        """The error's code."""
        return self.decline_code if self.decline_code in _OWN_CODES else "card_declined"

    @property
    def message(self) -> str:
        """What the cardholder may be told."""
        return _MESSAGES.get(self.decline_code, "Your card was declined.")

    def error(self) -> Obj:
        """Return the fields of a card error."""
        return {
            "type": "card_error",
            "code": self.code,
            "decline_code": self.decline_code,
            "message": self.message,
            "doc_url": f"https://docs.stripe.com/error-codes#{self.code.replace('_', '-')}",
        }
