"""`backfill_events`: fetches from Stripe's own list of events those that were never delivered.

Stripe gives up on a webhook after three days and forgets an event after 30 (facts on Stripe,
'Webhooks'). In between its list is the only witness, whatever was away and however long. The list
is read in windows of time, oldest first, and how far it was read is committed after each window,
so a long way is made in several goes; the last stretch is read again each time, since an event may
be listed a moment late. What is in the inbox already stays as it is.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from stripe import StripeClient
from temporalio import activity

from activities.stripe_calls import stripe_calls
from activities.transactions import transaction
from tallystick.ledger import inbox
from tallystick.ledger.database import Ledger
from tallystick.stripe_events import METER_REPORTS, Envelope, Form, UnreadableEventError, read_event

EVERY = timedelta(hours=1)
"""Deliveries bring news at once; this only heals, and Stripe counts reads (facts on Stripe,
'Meters')."""
OVERLAP = timedelta(hours=1)
WINDOW = timedelta(days=1)
KEPT = timedelta(days=30)
"""How long Stripe keeps events."""
PAGE = 100

_Listed = AsyncIterator[Mapping[str, Any]]


class EventBackfillActivities:
    """Reads Stripe's lists into the inbox of `ledger`; `clock` tells the present."""

    def __init__(self, ledger: Ledger, stripe: StripeClient, clock: Callable[[], datetime]):
        self._ledger = ledger
        self._stripe = stripe
        self._clock = clock

    @activity.defn
    async def backfill_events(self) -> int:
        """Put events in that were missed, where it is time to look; returns how many.

        Raises:
            ApplicationError: a row of the error table; what was read until then is kept.
        """
        snapshots = await self._read_on(Form.SNAPSHOT, self._snapshots)
        return snapshots + await self._read_on(Form.THIN, self._thin)

    async def _read_on(self, form: Form, listed: Callable[[datetime, datetime], _Listed]) -> int:
        async with transaction(self._ledger) as tx:
            until = await inbox.read_until(tx, form)
        now, missed = self._clock(), 0
        if until is None or now - until < EVERY:
            return 0
        start = max(until - OVERLAP, now - KEPT)
        while start < now:
            end = min(start + WINDOW, now)
            missed += await self._put_in(listed(start, end))
            async with transaction(self._ledger) as tx:
                await inbox.note_read(tx, form, end)
            start = end
        return missed

    async def _put_in(self, listed: _Listed) -> int:
        missed, page = 0, list[Mapping[str, Any]]()
        with stripe_calls():
            async for event in listed:
                page.append(event)
                if len(page) == PAGE:
                    missed += await self._receive(page)
                    page.clear()
        return missed + await self._receive(page)

    async def _receive(self, page: list[Mapping[str, Any]]) -> int:
        now = self._clock()
        async with transaction(self._ledger) as tx:
            events: list[Envelope] = []
            for event in page:
                try:
                    events.append(read_event(event))
                except UnreadableEventError as error:
                    await inbox.park_unreadable(tx, error, now)
            return await inbox.receive(tx, events, now)

    async def _snapshots(self, start: datetime, end: datetime) -> _Listed:
        listed = await self._stripe.v1.events.list_async(
            {
                "created": {"gte": int(start.timestamp()), "lte": int(end.timestamp())},
                "limit": PAGE,
            }
        )
        async for event in listed.auto_paging_iter():
            yield event.to_dict()

    async def _thin(self, start: datetime, end: datetime) -> _Listed:
        """List reports on meters; whatever else there is as a thin event is a snapshot too."""
        listed = await self._stripe.v2.core.events.list_async(
            {
                "created": {"gte": _rfc3339(start), "lte": _rfc3339(end)},
                "limit": PAGE,
                "types": list(METER_REPORTS),
            }
        )
        async for event in listed.auto_paging_iter():
            yield event.to_dict()


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
