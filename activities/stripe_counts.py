"""Asking Stripe what it counts: a few questions at a time, each counted, each answered or refused.

Some customer of many is always in trouble somewhere: deleted at Stripe, or answered by a 500. What
Stripe refuses is therefore an answer like a sum, and whoever asked goes on with the others. What
concerns all of them (a rate limit, a key that may not read) is told from it.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from datetime import datetime
from typing import TypeVar

import stripe

from activities.stripe_clients import Refusal, refusal
from activities.stripe_summaries import InexactSumError, MeterSummaries, UnknownMeterError
from tallystick.errors import STRIPE_FORBIDDEN, STRIPE_RATE_LIMITED, STRIPE_REJECTED, Action

AT_ONCE = 8
"""Questions under way: at some 300 milliseconds each, Stripe's 25 a second for one endpoint are
just kept (facts on Stripe, 'Meters'), and other calls have 100 a second of their own."""

T = TypeVar("T")


class StripeCounts:
    """Asks `summaries`; one for each step, since it counts the step's calls."""

    def __init__(self, summaries: MeterSummaries, calls: int = 0):
        self._summaries = summaries
        self._slots = asyncio.Semaphore(AT_ONCE)
        self.calls = calls

    async def hours(
        self, stripe_customer_ids: Sequence[str], meter: str, start: datetime, end: datetime
    ) -> dict[datetime, int] | Refusal:
        """Return what counts in each hour of up to 100 for a customer, whoever it is at Stripe."""
        counted: dict[datetime, int] = {}
        for each in stripe_customer_ids:
            found = await self._ask(self._summaries.hours(each, meter, start, end))
            if isinstance(found, Refusal):
                return found
            counted |= {hour: counted.get(hour, 0) + value for hour, value in found.items()}
        return counted

    async def total(
        self, stripe_customer_ids: Sequence[str], meter: str, start: datetime, end: datetime
    ) -> int | Refusal:
        """Return what counts in [start, end), whole minutes, for a customer."""
        counted = 0
        for each in stripe_customer_ids:
            found = await self._ask(self._summaries.total(each, meter, start, end))
            if isinstance(found, Refusal):
                return found
            counted += found
        return counted

    async def _ask(self, question: Awaitable[T]) -> T | Refusal:
        async with self._slots:
            self.calls += 1
            try:
                return await question
            except stripe.StripeError as error:
                return refusal(error)
            except (UnknownMeterError, InexactSumError) as error:
                return Refusal(STRIPE_REJECTED, str(error))


def passes(refused: Refusal) -> bool:
    """Tell whether the trouble passes by itself."""
    return refused.row.action is Action.RETRY


def everybodys(refused: Sequence[Refusal]) -> Refusal | None:
    """Return the trouble that would meet every other question too, if it is among these."""
    of_all = (STRIPE_RATE_LIMITED, STRIPE_FORBIDDEN)
    return next((each for each in refused if each.row in of_all), None)
