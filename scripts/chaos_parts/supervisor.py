"""Keeps so many processes running: each that ends is started again, as a supervisor would do it.

It samples memory too: that of the first process, which a drill spares, so that what it holds early
and late can be compared; the others begin anew too often.
"""

import asyncio
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import psutil

from tallystick.embedded import stop_process

from .memory import Memory, memory

AGAIN_AFTER = 1.0
"""Seconds until a process that ended by itself is started again."""
GOODBYE = 90.0
"""Seconds for a process to finish what it has in hand when the drill is over."""
SAMPLE_EVERY = 1.0
"""Seconds between two looks at memory."""


class Fleet:
    """The processes; `start` makes the one of a slot."""

    def __init__(self, start: Callable[[int], Awaitable[Process]], size: int):
        self._start = start
        self._running: list[Process | None] = [None] * size
        self._sampled: list[int] = []
        self.killed = 0
        self.fell = 0
        """How often one ended by itself: a worker does that at its start while a server is away."""

    def down(self) -> int:
        """Return how many do not run at this moment."""
        return sum(each is None or each.returncode is not None for each in self._running)

    def kill(self, slot: int) -> None:
        """End one by SIGKILL; where it is down already, nothing happens."""
        process = self._running[slot]
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGKILL)
            self.killed += 1

    def memory(self) -> Memory | None:
        """Return what the spared process held; None where it was too short to tell."""
        return memory(self._sampled, SAMPLE_EVERY)

    @asynccontextmanager
    async def kept(self) -> AsyncGenerator[None, None]:
        """Start all, keep them running while the context is open, and end them in order."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._keep(slot)) for slot in range(len(self._running))]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(
                    *(stop_process(each, patience=GOODBYE) for each in self._running if each)
                )

    async def _keep(self, slot: int) -> None:
        while True:
            process = self._running[slot] = await self._start(slot)
            if await process.wait() != -signal.SIGKILL:
                self.fell += 1
                await asyncio.sleep(AGAIN_AFTER)

    async def watch_memory(self) -> None:
        """Sample the spared process until cancelled."""
        while True:
            await asyncio.sleep(SAMPLE_EVERY)
            spared = self._running[0]
            if spared is not None and spared.returncode is None:
                with suppress(psutil.NoSuchProcess):
                    self._sampled.append(psutil.Process(spared.pid).memory_info().rss)
