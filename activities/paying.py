"""Paying what is open with a card that was put in the place of the one that failed.

Stripe itself tries a failed invoice again days later, and after a hard decline not at all; whoever
has just replaced a card expects to be served. The card that failed is left alone: trying it again
is Stripe's business, and a customer changes for many reasons, the failure itself among them. The
charge goes out under a key of invoice and card: events come in twice and in any order, and for a
day every further one gets the first answer and charges nothing. A decline is no error of ours: what
follows is what grace is for.
"""

import stripe
from stripe import StripeClient

from activities.stripe_calls import stripe_calls
from activities.stripe_clients import refusal
from activities.stripe_invoices import open_payment
from activities.stripe_once import create_once
from tallystick.errors import PAYMENT_DECLINED


async def pay_with_new_card(client: StripeClient, invoice_id: str) -> bool:
    """Charge a customer's new card for an open invoice that another card could not pay.

    Returns whether a charge went through. Invoices that are sent with terms of payment, or that
    were never tried, are left to themselves.

    Raises:
        ApplicationError: a row of the error table.
    """
    with stripe_calls():
        invoice = await client.v1.invoices.retrieve_async(invoice_id)
        tried = invoice.status == "open" and invoice.attempted
        if not tried or invoice.collection_method != "charge_automatically":
            return False
        assert isinstance(invoice.customer, str)  # noqa: S101 - it was not expanded
        card = await _card(client, invoice.customer)
        if card is None or card == await _failed_card(client, invoice_id):
            return False
        try:
            paid = await create_once(
                lambda params, options: client.v1.invoices.pay_async(invoice_id, params, options),
                {"payment_method": card, "off_session": True},
                f"pay-{invoice_id}-{card}",
            )
        except stripe.StripeError as error:
            if refusal(error).row is not PAYMENT_DECLINED:
                raise
            return False
        return paid.status == "paid"


async def _card(client: StripeClient, stripe_customer_id: str) -> str | None:
    settings = (await client.v1.customers.retrieve_async(stripe_customer_id)).invoice_settings
    card = settings.default_payment_method if settings else None
    return card if card is None or isinstance(card, str) else card.id


async def _failed_card(client: StripeClient, invoice_id: str) -> str | None:
    intent = await open_payment(client, invoice_id)
    error = intent.last_payment_error if intent else None
    method = error.payment_method if error else None
    return method.id if method else None
