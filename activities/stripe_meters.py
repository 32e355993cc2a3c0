"""The ways a meter event reaches Stripe: the stream, or one call per event.

Both send the same facts under the same identifiers, so an event may be tried on one way and again
on the other and still counts once. A duplicate is a delivery: Stripe says that it has the event.

The stream takes 100 events a call and tells nothing about single ones. One call at a time leaves
a worker; the token of its session is renewed when Stripe says that it has expired. A call refused
as a whole (400) is sent again event by event, since one bad event must not keep 99 from Stripe.

Single events go through v2, which checks them before the receipt, names a duplicate by a code and
works again on what had failed under the same idempotency key (v1 replays a 500 for a day). Per
customer and meter one event is in flight at a time, or Stripe answers 429 (facts on Stripe, 'Read
this first' 3, 5 and 7).
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol
from weakref import WeakValueDictionary

import stripe
from stripe import StripeClient

from activities.stripe_clients import (
    Refusal,
    StripeAddress,
    error_code,
    refusal,
    stripe_client,
)
from activities.stripe_summaries import MeterSummaries
from tallystick.settings import Settings

STREAM_LIMIT = 100
"""Events in one call of the stream (facts on Stripe, 'Meters')."""
SINGLE_CALLS = 16
"""Single events in flight at a time, over all lanes of a worker."""
_DUPLICATE = "duplicate_meter_event"


@dataclass(frozen=True, slots=True)
class OutgoingEvent:
    """One event as Stripe is told it. `value` is a count or whole nano-USD."""

    identifier: str
    meter: str
    stripe_customer_id: str
    value: int
    occurred_at: datetime
    idempotency_key: str


Answers = list[Refusal | None]
"""One per event, in order; None says that Stripe has acknowledged it."""


class MeterTransport(Protocol):
    """A way to Stripe's meters, and a look at what they counted."""

    @property
    def summaries(self) -> MeterSummaries:
        """What Stripe has counted."""
        ...

    async def send(self, events: Sequence[OutgoingEvent]) -> Answers:
        """Send the events; never raises for an event that Stripe did not take."""
        ...


@asynccontextmanager
async def meter_transport(
    where: StripeAddress, settings: Settings, database_url: str | None = None
) -> AsyncGenerator[MeterTransport, None]:
    """Yield the transport that the settings and the kind of key ask for (`stripe_client`)."""
    key = where.stripe_api_key.get_secret_value()
    async with stripe_client(where, settings, database_url) as client:
        singly = EventTransport(client)
        streams = wants_stream(settings.stripe_transport, key)
        yield StreamTransport(client, singly) if streams else singly


def wants_stream(choice: Literal["auto", "stream", "events"], key: str) -> bool:
    """Say whether the stream is to be used: with `auto`, for live-mode keys."""
    return choice == "stream" or (choice == "auto" and key.startswith(("sk_live_", "rk_live_")))


class EventTransport:
    """One call per event."""

    def __init__(self, client: StripeClient):
        self.summaries = MeterSummaries(client)
        self._client = client
        self._slots = asyncio.Semaphore(SINGLE_CALLS)
        # Weak, so that a lane lasts as long as somebody is in it.
        self._lanes = WeakValueDictionary[tuple[str, str], asyncio.Lock]()

    async def send(self, events: Sequence[OutgoingEvent]) -> Answers:
        """Send the events, those of different customers or meters side by side."""
        return list(await asyncio.gather(*(self._send(event) for event in events)))

    async def _send(self, event: OutgoingEvent) -> Refusal | None:
        try:
            await self.create(event)
        except stripe.StripeError as error:
            return None if is_duplicate(error) else refusal(error)
        return None

    async def create(self, event: OutgoingEvent) -> None:
        """Send one event; returns when Stripe has taken it by this very call.

        Raises:
            stripe.StripeError: as the SDK raised it, duplicates too (`is_duplicate`).
        """
        pair = (event.stripe_customer_id, event.meter)
        lane = self._lanes.setdefault(pair, asyncio.Lock())
        async with lane, self._slots:
            await self._client.v2.billing.meter_events.create_async(
                {
                    "event_name": event.meter,
                    "identifier": event.identifier,
                    "timestamp": _timestamp(event.occurred_at),
                    "payload": _payload(event),
                },
                {"idempotency_key": event.idempotency_key},
            )


class StreamTransport:
    """Up to 100 events a call, one call at a time."""

    def __init__(self, client: StripeClient, singly: EventTransport):
        self.summaries = singly.summaries
        self._client = client
        self._singly = singly
        self._turn = asyncio.Lock()
        self._token: str | None = None

    async def send(self, events: Sequence[OutgoingEvent]) -> Answers:
        """Send the events in as few calls as they fit in."""
        answers: Answers = []
        for start in range(0, len(events), STREAM_LIMIT):
            answers += await self._call(events[start : start + STREAM_LIMIT])
        return answers

    async def _call(self, events: Sequence[OutgoingEvent]) -> Answers:
        try:
            async with self._turn:
                await self._stream(events)
        except stripe.InvalidRequestError:
            return await self._singly.send(events)
        except stripe.StripeError as error:
            return [refusal(error)] * len(events)
        return [None] * len(events)

    async def _stream(self, events: Sequence[OutgoingEvent]) -> None:
        known_token = self._token
        try:
            await self._stream_under(known_token or await self._new_token(), events)
        except (stripe.TemporarySessionExpiredError, stripe.AuthenticationError):
            # A token that worked before is worth replacing; a fresh one that fails is not.
            if known_token is None:
                raise
            await self._stream_under(await self._new_token(), events)

    async def _new_token(self) -> str:
        self._token = None
        session = await self._client.v2.billing.meter_event_session.create_async()
        self._token = session.authentication_token
        return self._token

    async def _stream_under(self, token: str, events: Sequence[OutgoingEvent]) -> None:
        await self._client.v2.billing.meter_event_stream.create_async(
            {
                "events": [
                    {
                        "event_name": event.meter,
                        "identifier": event.identifier,
                        "timestamp": _timestamp(event.occurred_at),
                        "payload": _payload(event),
                    }
                    for event in events
                ]
            },
            {"api_key": token},
        )


def is_duplicate(error: stripe.StripeError) -> bool:
    """Tell whether Stripe did not take an event because it has one of that identifier."""
    return error_code(error) == _DUPLICATE


def _payload(event: OutgoingEvent) -> dict[str, str]:
    return {"stripe_customer_id": event.stripe_customer_id, "value": str(event.value)}


def _timestamp(occurred_at: datetime) -> str:
    # Cut to the second, not rounded: the event stays in the minute by which it is looked up.
    return occurred_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
