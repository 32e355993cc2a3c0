"""Paying what is open with a card that was put in the place of another.

Stripe itself tries a failed invoice again days later, and after a hard decline not at all; whoever
has just replaced a card expects to be served. The charge goes out under a key of invoice and card:
events come in twice and in any order, and for a day every further one gets the first answer and
charges nothing. A card that is declined is no error of ours: what follows is what grace is for.
"""

import stripe
from stripe import StripeClient

from activities.stripe_calls import stripe_calls
from activities.stripe_clients import refusal
from activities.stripe_once import create_once
from tallystick.errors import PAYMENT_DECLINED


async def pay_with_present_card(client: StripeClient, invoice_id: str) -> bool:
    """Charge the customer's present card for an open invoice whose payment failed before.

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
        customer = await client.v1.customers.retrieve_async(invoice.customer)
        settings = customer.invoice_settings
        card = settings.default_payment_method if settings else None
        if card is None:
            return False
        card_id = card if isinstance(card, str) else card.id
        try:
            paid = await create_once(
                lambda params, options: client.v1.invoices.pay_async(invoice_id, params, options),
                {"payment_method": card_id, "off_session": True},
                f"pay-{invoice_id}-{card_id}",
            )
        except stripe.StripeError as error:
            if refusal(error).row is not PAYMENT_DECLINED:
                raise
            return False
        return paid.status == "paid"
