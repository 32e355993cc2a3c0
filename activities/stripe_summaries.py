"""What Stripe has counted: sums of a customer's events on a meter, from the event summaries.

Summaries are eventually consistent, come as floats, and demand whole minutes (facts on Stripe,
'Meters'). They answer what a receipt cannot: whether an event whose answer was lost took effect.
"""

from datetime import datetime

from stripe import StripeClient

_EXACT = 2**53
"""From here on a float no longer tells neighbouring integers apart."""


class UnknownMeterError(LookupError):
    """Stripe has no meter of that event name."""


class InexactSumError(ValueError):
    """The sum is no whole number or too large to have come through exactly."""


class MeterSummaries:
    """Reads summaries; remembers which meter has which event name."""

    def __init__(self, client: StripeClient):
        self._client = client
        self._meters: dict[str, str] = {}

    async def total(
        self, stripe_customer_id: str, meter: str, start: datetime, end: datetime
    ) -> int:
        """Return what counts in [start, end), both on whole minutes.

        Raises:
            UnknownMeterError: no such meter.
            InexactSumError: the sum cannot be relied on.
            stripe.StripeError: as the SDK raised it.
        """
        found = await self._client.v1.billing.meters.event_summaries.list_async(
            await self._meter_id(meter),
            {
                "customer": stripe_customer_id,
                "start_time": int(start.timestamp()),
                "end_time": int(end.timestamp()),
                "limit": 100,
            },
        )
        total = 0
        async for each in found.auto_paging_iter():
            value = each.aggregated_value
            if value != int(value) or abs(value) >= _EXACT:
                raise InexactSumError(f"meter {meter}: {value!r} is not exact")
            total += int(value)
        return total

    async def _meter_id(self, meter: str) -> str:
        if meter not in self._meters:
            found = await self._client.v1.billing.meters.list_async({"limit": 100})
            self._meters = {each.event_name: each.id async for each in found.auto_paging_iter()}
        try:
            return self._meters[meter]
        except KeyError:
            raise UnknownMeterError(
                f"Stripe has no meter {meter!r}; run `tallystick stripe setup`"
            ) from None
