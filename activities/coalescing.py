"""Lets concurrent activities of one worker share their calls.

An activity hands in its order and waits for its own result. Orders are gathered until they make a
full batch or the oldest has waited long enough; a batch is then worked on by a task of its own.
That task belongs to no activity: one that is cancelled, or times out, takes its order out of the
gathering or leaves the batch to finish for the others. Nothing is kept here that Temporal does
not hold as an open activity, so a worker that dies loses nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Order = TypeVar("Order")
Result = TypeVar("Result")


@dataclass(eq=False, slots=True)
class _Ticket(Generic[Order, Result]):
    order: Order
    size: int
    since: float
    result: "asyncio.Future[Result]"


class Coalescer(Generic[Order, Result]):
    """Gathers orders into batches of up to `full`, waiting `linger` seconds at the most.

    `work` gets the orders of a batch and returns for each its result or its error, in order; what
    it raises itself fails them all.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Order]], Awaitable[Sequence[Result | Exception]]],
        *,
        full: int,
        linger: float,
    ):
        self._work, self._full, self._linger = work, full, linger
        self._gathered: list[_Ticket[Order, Result]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._working: set[asyncio.Task[None]] = set()

    async def submit(self, order: Order, size: int) -> Result:
        """Return the order's result, or raise its error; `size` is its share of a batch."""
        loop = asyncio.get_running_loop()
        ticket = _Ticket[Order, Result](order, size, loop.time(), loop.create_future())
        self._gathered.append(ticket)
        while sum(each.size for each in self._gathered) >= self._full:
            self._start_batch()
        self._set_timer()
        try:
            return await ticket.result
        finally:
            if ticket in self._gathered:  # cancelled before its batch began
                self._gathered.remove(ticket)
                self._set_timer()

    async def drain(self) -> None:
        """Work on what is gathered now and wait until no batch is left."""
        while self._gathered or self._working:
            while self._gathered:
                self._start_batch()
            await asyncio.wait(self._working)
        self._set_timer()

    def _start_batch(self) -> None:
        batch = [self._gathered.pop(0)]
        room = self._full - batch[0].size
        while self._gathered and self._gathered[0].size <= room:
            batch.append(self._gathered.pop(0))
            room -= batch[-1].size
        task = asyncio.create_task(self._finish(batch))
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    def _on_timer(self) -> None:
        self._start_batch()
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self._gathered:
            due = self._gathered[0].since + self._linger
            self._timer = asyncio.get_running_loop().call_at(due, self._on_timer)

    async def _finish(self, batch: Sequence[_Ticket[Order, Result]]) -> None:
        results: Sequence[Result | Exception]
        try:
            results = await self._work([ticket.order for ticket in batch])
        except Exception as error:
            results = [error] * len(batch)
        for ticket, result in zip(batch, results, strict=True):
            if ticket.result.done():
                continue  # its activity has gone
            if isinstance(result, Exception):
                ticket.result.set_exception(result)
            else:
                ticket.result.set_result(result)
