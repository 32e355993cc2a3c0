"""`POST /webhooks/stripe`: takes an event, commits it to the inbox, and only then says so.

Whatever happens after the answer can be made up for, so nothing happens before it but one INSERT:
no call to Stripe, none to Temporal. Where even that fails the answer is 503, and Stripe delivers
again for three days. What is not signed by Stripe, or not now, is refused and counted.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse
from pydantic import SecretStr

from tallystick.ledger import inbox
from tallystick.ledger.database import Ledger, LedgerUnavailableError
from tallystick.stripe_events import UnreadableEventError, read_event
from tallystick.web.bodies import TooLargeError, read_body
from tallystick.web.signatures import RejectedError, Rejection, verify

log = logging.getLogger("tallystick.web")

MAX_BODY = 1 << 20
"""Bytes. Stripe's events stay far below: lists inside an object are cut to their first page."""
COMMIT_PATIENCE = 10.0
"""Seconds for the commit. Stripe gives up on an endpoint sooner or later; told 503, it knows."""


class Outcome(StrEnum):
    """What became of a webhook that Stripe had signed."""

    RECEIVED = "received"
    DUPLICATE = "duplicate"
    UNREADABLE = "unreadable"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Counts:
    """Webhooks since this process began: each is in one of the two, under what became of it."""

    taken: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(Outcome, 0)))
    rejected: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(Rejection, 0)))


def webhook_routes(
    ledger: Ledger,
    secrets: Sequence[SecretStr],
    counts: Counts,
    wake: Callable[[], None],
    clock: Callable[[], datetime],
) -> APIRouter:
    """Return the route that takes Stripe's events.

    Args:
        ledger: whose inbox they go to.
        secrets: any of them may have signed.
        counts: counted up.
        wake: called after a commit that brought something new.
        clock: tells the present, by which signatures are judged.
    """
    routes = APIRouter()

    @routes.post("/webhooks/stripe")
    async def receive(request: Request) -> PlainTextResponse:  # pyright: ignore[reportUnusedFunction]
        now = clock()
        try:
            body = await read_body(request, MAX_BODY)
            verify(body, request.headers.get("stripe-signature"), secrets, now.timestamp())
        except TooLargeError as error:
            counts.rejected[Rejection.TOO_LARGE] += 1
            return PlainTextResponse(f"{error}\n", 413)
        except RejectedError as error:
            counts.rejected[error.reason] += 1  # and not logged: anybody may knock, and often
            return PlainTextResponse(f"{error}\n", 400)
        try:
            async with asyncio.timeout(COMMIT_PATIENCE):
                outcome = await _commit(ledger, body, now)
        except (LedgerUnavailableError, TimeoutError):
            counts.taken[Outcome.UNAVAILABLE] += 1
            log.warning("a webhook could not be kept: the ledger is away")
            return PlainTextResponse("the ledger is away; deliver it again\n", 503)
        counts.taken[outcome] += 1
        if outcome is Outcome.RECEIVED:
            wake()
        return PlainTextResponse("")

    return routes


async def _commit(ledger: Ledger, body: bytes, at: datetime) -> Outcome:
    try:
        event = read_event(body)
    except UnreadableEventError as error:
        log.error("Stripe's event %s is parked: %s", error.event_id, error)  # noqa: TRY400
        async with ledger.begin() as tx:
            await inbox.park_unreadable(tx, error, at)
        return Outcome.UNREADABLE
    async with ledger.each() as tx:
        new = await inbox.receive(tx, [event], at)
    return Outcome.RECEIVED if new else Outcome.DUPLICATE
