"""Heartbeats of an activity that waits on something slow.

They are how Temporal learns that a killed worker is gone: without them a call in flight would be
given up only when its whole time is over.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from temporalio import activity

HEARTBEAT_EVERY = 4.0
"""Seconds between heartbeats: several fit into `HEARTBEAT_TIMEOUT`, so that a busy machine which
misses one or two is not taken for dead. A false alarm would cost a second Claude call."""


@asynccontextmanager
async def heartbeating() -> AsyncGenerator[None, None]:
    """Send heartbeats until the block ends."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_EVERY)
            activity.heartbeat()

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
        with suppress(asyncio.CancelledError):
            await beating
