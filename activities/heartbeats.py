"""Heartbeats of an activity that waits on something slow.

They are how Temporal learns that a killed worker is gone: without them a call in flight would be
given up only when its whole time is over. The latest one also tells whoever takes over how far the
work has come, if the activity has said what to tell; so within an activity only one beats, and an
inner one only says what.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from temporalio import activity

HEARTBEAT_EVERY = 4.0
"""Seconds between heartbeats: several fit into `HEARTBEAT_TIMEOUT`, so that a busy machine which
misses one or two is not taken for dead. A false alarm would cost a second Claude call."""

Telling = Callable[[], Any]


@dataclass(slots=True)
class _Beat:
    telling: Telling | None

    async def go_on(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_EVERY)
            activity.heartbeat(*() if self.telling is None else (self.telling(),))


_beat: ContextVar[_Beat | None] = ContextVar("beat", default=None)


@asynccontextmanager
async def heartbeating(telling: Telling | None = None) -> AsyncGenerator[None, None]:
    """Send heartbeats until the block ends; `telling` returns what each of them carries."""
    outer = _beat.get()
    if outer is not None:
        before, outer.telling = outer.telling, telling or outer.telling
        try:
            yield
        finally:
            outer.telling = before
        return
    beat = _Beat(telling)
    token = _beat.set(beat)
    beating = asyncio.create_task(beat.go_on())
    try:
        yield
    finally:
        beating.cancel()
        _beat.reset(token)
        with suppress(asyncio.CancelledError):
            await beating
