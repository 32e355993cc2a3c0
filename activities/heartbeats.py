"""Heartbeats of an activity that waits on something slow.

They are how Temporal learns that a killed worker is gone: without them a call in flight would be
given up only when its whole time is over.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from temporalio import activity

HEARTBEAT_EVERY = 4.0
"""Seconds between heartbeats: several fit into `HEARTBEAT_TIMEOUT`, so that a busy machine which
misses one or two is not taken for dead. A false alarm would cost a second Claude call."""


@asynccontextmanager
async def heartbeating(
    *, every: float = HEARTBEAT_EVERY, telling: Callable[[], Any] | None = None
) -> AsyncGenerator[None, None]:
    """Send heartbeats until the block ends.

    Args:
        every: seconds between them.
        telling: what each is to carry, for whoever takes over; the latest one holds.
    """

    async def beat() -> None:
        while True:
            await asyncio.sleep(every)
            activity.heartbeat(*() if telling is None else (telling(),))

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
        with suppress(asyncio.CancelledError):
            await beating
