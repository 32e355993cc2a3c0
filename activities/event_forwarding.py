"""Forwarding: from the inbox of Stripe's events to the cycles of the customers they concern.

First it is found out, and committed, whose the events are; then each customer's cycle is told of
its news with one signal, whatever number of events there is, and only then are they marked as
forwarded. A crash in between tells the cycle twice, which makes it look twice; while Temporal is
away the events wait where they are. The web process does this after each delivery, and the sweep
every minute; claims keep them out of each other's way.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import stripe
from stripe import StripeClient
from temporalio.client import Client
from temporalio.service import RPCError

from activities.stripe_clients import refusal
from activities.waking import wake
from tallystick.contracts import News
from tallystick.ledger import inbox
from tallystick.ledger.database import Ledger
from tallystick.ledger.inbox import WaitingEvent

log = logging.getLogger("tallystick.events")

PAGE = 200
"""Events taken at a time: bounds a transaction, and the size of a signal."""
LANES = 10
"""Signals under way at a time."""
GONE = "Stripe no longer has what it was about"


class EventForwarder:
    """Empties the inbox in `ledger` towards the cycles.

    Args:
        ledger: whose inbox.
        stripe: asked whose an object is where neither event nor ledger say so.
        clock: tells the present.
    """

    def __init__(self, ledger: Ledger, stripe: StripeClient, clock: Callable[[], datetime]):
        self._ledger = ledger
        self._stripe = stripe
        self._clock = clock

    async def forward(self, client: Client) -> int:
        """Tell every cycle of the events that wait for it; returns how many those were.

        Raises:
            LedgerUnavailableError: PostgreSQL is away; what is not committed is done again.
            RPCError: Temporal does not answer; what it took is marked, the rest waits.
        """
        await self._assign()
        forwarded = 0
        while told := await self._tell(client):
            forwarded += told
        return forwarded

    async def _assign(self) -> None:
        """Find out whose the events are. What Stripe would have to be asked about waits for it."""
        after = None
        unknown: dict[str, list[str]] = defaultdict(list)
        while True:
            async with self._ledger.begin() as tx:
                page = await inbox.assign(tx, after=after, limit=PAGE)
                nobodys: list[str] = []
                for event in page:
                    if event.customer_id is None:
                        subject = _askable(event)
                        (nobodys if subject is None else unknown[subject]).append(event.event_id)
                await inbox.mark_applied(tx, nobodys, self._clock(), reason=inbox.NO_CUSTOMER)
            if len(page) < PAGE:
                break
            after = page[-1].place
        await self._ask_whose(unknown)

    async def _ask_whose(self, events_by_object: Mapping[str, Sequence[str]]) -> None:
        for object_id, event_ids in events_by_object.items():
            reason = inbox.NO_CUSTOMER
            try:
                customer = await _customer_of(self._stripe, object_id)
            except stripe.StripeError as error:
                if error.http_status != 404:  # noqa: PLR2004
                    log.warning(
                        "whose %s is remains unknown: %s", object_id, refusal(error).message
                    )
                    return
                customer, reason = None, GONE
            async with self._ledger.begin() as tx:
                if customer is None or not await inbox.adopt(tx, event_ids, customer):
                    await inbox.mark_applied(tx, event_ids, self._clock(), reason=reason)

    async def _tell(self, client: Client) -> int:
        """Tell the cycles of one page of news; returns how many events that were."""
        told: list[str] = []
        failures: list[RPCError] = []
        async with self._ledger.begin() as tx:
            news: dict[str, list[str]] = defaultdict(list)
            for event in await inbox.claim_news(tx, PAGE):
                assert event.customer_id is not None  # noqa: S101 - claimed as such
                news[event.customer_id].append(event.event_id)
            customers = iter(news.items())

            async def lane() -> None:
                for customer_id, event_ids in customers:
                    if failures:
                        return  # each further one would wait as long in vain
                    try:
                        await wake(client, customer_id, News(event_ids=tuple(event_ids)))
                    except RPCError as error:
                        failures.append(error)
                    else:
                        told.extend(event_ids)

            await asyncio.gather(*(lane() for _ in range(LANES)))
            await inbox.mark_forwarded(tx, told, self._clock())
        if failures:
            raise failures[0]
        return len(told)


_KINDS = ("in", "sub", "pm")
"""How ids begin of what can be fetched and then says whose it is."""


def _askable(event: WaitingEvent) -> str | None:
    """Return what Stripe can be asked about to learn whose the event is, if anything."""
    if event.stripe_customer_id is None and _kind(event.object_id) in _KINDS:
        return event.object_id
    return None


def _kind(object_id: str | None) -> str:
    return (object_id or "").partition("_")[0]


async def _customer_of(client: StripeClient, object_id: str) -> str | None:
    match _kind(object_id):
        case "in":
            found = (await client.v1.invoices.retrieve_async(object_id)).customer
        case "sub":
            found = (await client.v1.subscriptions.retrieve_async(object_id)).customer
        case _:
            found = (await client.v1.payment_methods.retrieve_async(object_id)).customer
    return found if found is None or isinstance(found, str) else found.id
