"""From an hour in which Stripe counts otherwise to the minutes that do, and their events.

Stripe is asked for parts of the hour until the minutes are found (`reconciling.narrowing`), and the
ledger for what was sent in them. Both may move on meanwhile: a part that does not fit to the whole,
or events that were sent a moment ago, leave the hour to a later look.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from activities.stripe_clients import Refusal
from activities.stripe_counts import AT_ONCE, StripeCounts
from activities.stripe_hours import DifferingHour, Place
from activities.transactions import transaction
from tallystick.ledger import outbox_sums, sent_minutes
from tallystick.ledger.database import Ledger
from tallystick.reconciling.meter_minutes import HOUR, MINUTE, Minute
from tallystick.reconciling.narrowing import narrow


@dataclass(slots=True)
class Narrowed:
    """What hours were narrowed to.

    `unjudged` are places of which nothing can be said yet, `refused` what Stripe did not answer.
    """

    minutes: list[Minute] = field(default_factory=list[Minute])
    unjudged: list[Place] = field(default_factory=list[Place])
    refused: list[Refusal] = field(default_factory=list[Refusal])

    def refuse(self, place: Place, refused: Refusal) -> None:
        """Note that Stripe has not answered about a place."""
        self.refused.append(refused)
        self.unjudged.append(place)

    def add(self, minute: Minute) -> None:
        """Take in a minute; one in which something was sent a moment ago is not judged yet."""
        if minute.fresh and not minute.agrees:
            self.unjudged.append(
                Place(
                    customer_id=minute.customer_id,
                    meter=minute.meter,
                    start=minute.at,
                    end=minute.at + MINUTE,
                )
            )
        else:
            self.minutes.append(minute)


class StripeMinutes:
    """Narrows hours down by `counts` and the ledger's outbox.

    What was sent or repaired after `shown_since` has not had the time to show at Stripe.
    """

    def __init__(self, ledger: Ledger, counts: StripeCounts, shown_since: datetime):
        self._ledger = ledger
        self._counts = counts
        self._shown_since = shown_since

    async def of_hours(self, hours: Sequence[DifferingHour]) -> Narrowed:
        """Return the minutes of these hours that may differ."""
        narrowed = Narrowed()
        for first in range(0, len(hours), AT_ONCE):
            group = hours[first : first + AT_ONCE]
            await asyncio.gather(*(self._of_hour(each, narrowed) for each in group))
        return narrowed

    async def of_places(self, places: Sequence[Place]) -> Narrowed:
        """Return the minutes of these places that may differ: hours, or the minutes themselves."""
        narrowed = Narrowed()
        for first in range(0, len(places), AT_ONCE):
            group = places[first : first + AT_ONCE]
            await asyncio.gather(*(self._of_place(each, narrowed) for each in group))
        return narrowed

    async def _of_place(self, place: Place, into: Narrowed) -> None:
        customer_id, meter, start, end = place.customer_id, place.meter, place.start, place.end
        async with transaction(self._ledger) as tx:
            ids = await sent_minutes.stripe_customers(tx, customer_id, start, end)
        counted = await self._counts.total(ids, meter, start, end)
        if isinstance(counted, Refusal):
            into.refuse(place, counted)
        elif end - start == MINUTE:
            into.add(await self._read(customer_id, ids, meter, start, counted))
        else:
            hour = DifferingHour(
                customer_id=customer_id,
                stripe_customer_ids=tuple(ids),
                meter=meter,
                hour=start,
                expected=0,
                counted=counted,
            )
            await self._of_hour(hour, into)

    async def _of_hour(self, hour: DifferingHour, into: Narrowed) -> None:
        async with transaction(self._ledger) as tx:
            sent = await outbox_sums.sent_by_minute(
                tx, hour.customer_id, hour.meter, hour.hour, hour.hour + HOUR
            )
        found = await self._differing(hour, sent)
        if isinstance(found, Refusal):
            into.refuse(hour.place, found)
            return
        if sum(found.values()) - sum(sent[each] for each in found) != hour.counted - sum(sent):
            into.unjudged.append(hour.place)  # it has moved while it was asked about
        for index, counted in found.items():
            at = hour.hour + index * MINUTE
            into.add(
                await self._read(
                    hour.customer_id, hour.stripe_customer_ids, hour.meter, at, counted
                )
            )

    async def _differing(
        self, hour: DifferingHour, sent: Sequence[int]
    ) -> dict[int, int] | Refusal:
        """Return what Stripe counts in each minute of the hour that differs, by its number."""
        search = narrow(sent, hour.counted)
        try:
            span = next(search)
            while True:
                start, end = (hour.hour + index * MINUTE for index in (span.start, span.stop))
                counted = await self._counts.total(hour.stripe_customer_ids, hour.meter, start, end)
                if isinstance(counted, Refusal):
                    return counted
                span = search.send(counted)
        except StopIteration as done:
            return done.value

    async def _read(
        self, customer_id: str, ids: Sequence[str], meter: str, at: datetime, counted: int
    ) -> Minute:
        async with transaction(self._ledger) as tx:
            return await sent_minutes.read(
                tx,
                customer_id=customer_id,
                stripe_customer_ids=ids,
                meter=meter,
                at=at,
                counted=counted,
                shown_since=self._shown_since,
            )
