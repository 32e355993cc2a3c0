"""What Stripe has counted: sums of a customer's events on a meter, from the event summaries.

Summaries are eventually consistent, come as floats, and demand whole minutes (facts on Stripe,
'Meters'). They answer what a receipt cannot: whether an event whose answer was lost took effect.
"""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Literal

from stripe import StripeClient
from stripe.params.billing import MeterEventSummaryListParams

_EXACT = 2**53
"""From here on a float no longer tells neighbouring integers apart."""
_PAGE = 100
"""Sums in one answer at the most."""


class UnknownMeterError(LookupError):
    """Stripe has no meter of that event name."""


class InexactSumError(ValueError):
    """The sum is no whole number or too large to have come through exactly."""


class MeterSummaries:
    """Reads summaries; remembers which meter has which event name."""

    def __init__(self, client: StripeClient):
        self._client = client
        self._meters: dict[str, str] = {}
        self._looking = asyncio.Lock()

    async def total(
        self, stripe_customer_id: str, meter: str, start: datetime, end: datetime
    ) -> int:
        """Return what counts in [start, end), both on whole minutes.

        Raises:
            UnknownMeterError: no such meter.
            InexactSumError: the sum cannot be relied on.
            stripe.StripeError: as the SDK raised it.
        """
        sums = self._sums(stripe_customer_id, meter, start, end)
        return sum([value async for _, value in sums])

    async def hours(
        self, stripe_customer_id: str, meter: str, start: datetime, end: datetime
    ) -> dict[datetime, int]:
        """Return what counts in each hour of [start, end), both on whole hours; hours without
        usage are left out. One call for up to 100 hours.

        Raises:
            UnknownMeterError, InexactSumError, stripe.StripeError: as `total` does.
        """
        sums = self._sums(stripe_customer_id, meter, start, end, window="hour")
        return {hour: value async for hour, value in sums}

    async def _sums(
        self,
        stripe_customer_id: str,
        meter: str,
        start: datetime,
        end: datetime,
        window: Literal["hour"] | None = None,
    ) -> AsyncGenerator[tuple[datetime, int], None]:
        asked: MeterEventSummaryListParams = {
            "customer": stripe_customer_id,
            "start_time": int(start.timestamp()),
            "end_time": int(end.timestamp()),
            "limit": _PAGE,
        }
        if window is not None:
            asked["value_grouping_window"] = window
        summaries = self._client.v1.billing.meters.event_summaries
        found = await summaries.list_async(await self._meter_id(meter), asked)
        async for each in found.auto_paging_iter():
            value = each.aggregated_value
            if value != int(value) or abs(value) >= _EXACT:
                raise InexactSumError(f"meter {meter}: {value!r} is not exact")
            yield datetime.fromtimestamp(each.start_time, UTC), int(value)

    async def _meter_id(self, meter: str) -> str:
        async with self._looking:  # so that many who ask at first look once
            if meter not in self._meters:
                found = await self._client.v1.billing.meters.list_async({"limit": _PAGE})
                self._meters = {each.event_name: each.id async for each in found.auto_paging_iter()}
        try:
            return self._meters[meter]
        except KeyError:
            raise UnknownMeterError(
                f"Stripe has no meter {meter!r}; run `tallystick stripe setup`"
            ) from None
