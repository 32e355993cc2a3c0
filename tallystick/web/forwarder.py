"""Forwards in the background what webhooks brought, so that nobody waits for the next sweep.

Wakes that come while a round is under way lead to one more round and not to one each: a burst of
deliveries becomes a few signals. While Temporal or PostgreSQL is away it tries again from time to
time, and a process that starts begins with what its predecessor left. Nothing is held here: a
process that is killed loses a moment, and the sweep does the same work.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from temporalio.client import Client
from temporalio.service import RPCError

from activities.event_forwarding import EventForwarder
from tallystick.errors import UnavailableError
from tallystick.ledger.database import LedgerUnavailableError

log = logging.getLogger("tallystick.web")

LINGER = 0.2
"""Seconds from the first wake to the round: one change at Stripe is several events, one signal."""
PAUSE = 5.0
"""Seconds until the next try, after Temporal or PostgreSQL did not answer."""


class BackgroundForwarder:
    """One task that forwards whenever it is woken.

    Args:
        forwarder: does the work.
        connect: finds Temporal; called when there is something to tell, and again if it fails.
    """

    def __init__(self, forwarder: EventForwarder, connect: Callable[[], Awaitable[Client]]):
        self._forwarder = forwarder
        self._connect = connect
        self._client: Client | None = None
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Say that something is there to be forwarded."""
        self._news.set()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Forward while the context is open, beginning with what is there already."""
        self.wake()
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            await asyncio.sleep(LINGER)
            self._news.clear()
            try:
                if self._client is None:
                    self._client = await self._connect()
                await self._forwarder.forward(self._client)
            except (UnavailableError, RPCError, LedgerUnavailableError) as error:
                log.warning("events wait to be forwarded: %s", error)
            except Exception:
                # A task that ends with its first surprise would leave all further events to the
                # sweep, unnoticed.
                log.exception("events wait to be forwarded")
            else:
                continue
            await asyncio.sleep(PAUSE)
            self.wake()
