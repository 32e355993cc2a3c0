"""What repairs ask of Stripe, one call at a time, and what its answers mean to a repair.

Single events go through v2, since only it tells what became of each: 200 says that Stripe has taken
it just now, a duplicate that it knew the identifier before. An idempotency key is that of the
repair's row, never of an earlier send: Stripe repeats the answer to a key that has succeeded and
does nothing, and a repair repeated after a crash is meant to get just that (facts on Stripe, 'SDK'
and 'Meters').
"""

from datetime import datetime, timedelta
from typing import Literal

import stripe
from stripe import StripeClient

from activities import stripe_invoices
from activities.repairing import Later, Refused
from activities.stripe_clients import Refusal, refusal
from activities.stripe_invoices import Line
from activities.stripe_meters import EventTransport, OutgoingEvent, is_duplicate
from activities.stripe_summaries import InexactSumError, MeterSummaries, UnknownMeterError
from tallystick.errors import STRIPE_REJECTED

_MINUTE = timedelta(minutes=1)

Unanswered = Refused | Later
"""Stripe did not do it: refused where the call itself was at fault."""


class RepairCalls:
    """Calls `client` and asks `summaries`; `made` counts."""

    def __init__(self, client: StripeClient, summaries: MeterSummaries):
        self.made = 0
        self._client = client
        self._summaries = summaries
        self._events = EventTransport(client)

    async def counted(
        self, stripe_customer_id: str, meter: str, minute: datetime
    ) -> int | Unanswered:
        """Return what Stripe counts in a minute."""
        self.made += 1
        try:
            return await self._summaries.total(stripe_customer_id, meter, minute, minute + _MINUTE)
        except stripe.StripeError as error:
            return _unanswered(error)
        except (UnknownMeterError, InexactSumError) as error:
            return Refused(str(error))

    async def send(self, event: OutgoingEvent) -> Literal["taken", "known"] | Unanswered:
        """Send an event by itself: Stripe has taken it, or knew its identifier before."""
        self.made += 1
        try:
            await self._events.create(event)
        except stripe.StripeError as error:
            return "known" if is_duplicate(error) else _unanswered(error)
        return "taken"

    async def cancel(self, identifier: str, meter: str, key: str) -> Unanswered | None:
        """Have Stripe cancel an event; None where it does."""
        self.made += 1
        try:
            await self._client.v2.billing.meter_event_adjustments.create_async(
                {"event_name": meter, "type": "cancel", "cancel": {"identifier": identifier}},
                {"idempotency_key": key, "max_network_retries": 0},
            )
        except stripe.StripeError as error:
            return _unanswered(error)
        return None

    async def lines(self, invoice_id: str) -> list[Line] | Unanswered:
        """Return the lines of an invoice."""
        self.made += 1
        try:
            return await stripe_invoices.lines(self._client, invoice_id)
        except stripe.StripeError as error:
            return _unanswered(error)


def _unanswered(error: stripe.StripeError) -> Unanswered:
    refused: Refusal = refusal(error)
    if refused.row is STRIPE_REJECTED:
        return Refused(refused.message)
    return Later(refused.message, refused)
