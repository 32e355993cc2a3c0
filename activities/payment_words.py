"""Why a payment failed, in words that a customer and an operator can act on.

Keyed by Stripe's decline codes (docs.stripe.com/declines/codes), else by its error codes. What
Stripe asks not to tell a customer, that a card is reported lost or that fraud is suspected, reads
as any other refusal of the bank.
"""

from collections.abc import Mapping

from stripe import PaymentIntent, StripeError

from activities.stripe_clients import error_code, error_detail

_BANK = "the bank declined the card without a reason; another card, or a call to the bank, helps"

WORDS: Mapping[str, str] = {
    "expired_card": "the card has expired",
    "insufficient_funds": "the card has insufficient funds",
    "authentication_required": "the bank wants the cardholder to confirm the payment",
    "invoice_payment_intent_requires_action": (
        "the bank wants the cardholder to confirm the payment"
    ),
    "incorrect_cvc": "the card's security code is wrong",
    "invalid_cvc": "the card's security code is wrong",
    "incorrect_number": "the card's number is wrong",
    "invalid_number": "the card's number is wrong",
    "invalid_expiry_month": "the card's expiry date is wrong",
    "invalid_expiry_year": "the card's expiry date is wrong",
    "card_velocity_exceeded": "the card's limit is reached",
    "withdrawal_count_limit_exceeded": "the card's limit is reached",
    "currency_not_supported": "the card does not take this currency",
    "card_not_supported": "the card does not allow this kind of payment",
    "transaction_not_allowed": "the card does not allow this kind of payment",
    "processing_error": "the bank could not process the payment just then",
    "issuer_not_available": "the bank could not be reached",
    "try_again_later": "the bank could not process the payment just then",
    "payment_method_provider_timeout": "the bank could not be reached",
}
NO_METHOD = "there is no card or other payment method to charge"
UNKNOWN = "the payment did not go through"


def of_intent(intent: PaymentIntent | None) -> str:
    """Return why a payment that is still open has not come in."""
    if intent is None:
        return UNKNOWN
    error = intent.last_payment_error
    if error is not None:
        return _words(error.decline_code, error.code)
    return WORDS["authentication_required"] if intent.status == "requires_action" else NO_METHOD


def of_error(error: StripeError) -> str:
    """Return why a payment was declined, from what the SDK raised."""
    return _words(error_detail(error, "decline_code"), error_code(error))


def _words(decline_code: str | None, code: str | None) -> str:
    for each in (decline_code, code):
        if each is not None and each in WORDS:
            return WORDS[each]
    return _BANK if decline_code or code == "card_declined" else UNKNOWN
