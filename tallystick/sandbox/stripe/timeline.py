"""The account's clock, and everything that falls due on it, done in order and at its own instant.

A subscription turns, a draft finalizes, a card is tried again: each is work put on the timeline for
an instant. It is done by whoever comes first: a call to the API, a timer in real time, or an order
to advance the clock. While it is done the clock shows its instant, so what a slow caller finds is
the same as what a prompt one would have found. An advance also waits, before time moves on, until
the webhooks of each instant have been answered or given up: whether they were decides what falls
due next.

Work looks at the state it finds and does nothing when that has moved on; nothing is ever taken off
the timeline.
"""

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable

from tallystick.sandbox.clock import Clock, ClockOrder, SettableClock

Work = Callable[[], None]

_SHORTEST_TIMER = 0.001
"""Seconds; a source that stands a moment before an instant must not keep the loop busy."""


class Timeline:
    """A clock to be read by calling it, with work at instants.

    Args:
        source: Unix seconds; what the clock shows until it is set.
    """

    def __init__(self, source: Clock):
        self._clock = SettableClock(source)
        self._at_work: float | None = None
        self._due: list[tuple[float, int, Work]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._advancing = asyncio.Lock()

    def __call__(self) -> float:
        """Return Unix seconds."""
        return self._clock() if self._at_work is None else self._at_work

    def at(self, instant: float, work: Work) -> None:
        """Have something done at an instant, at once if that has passed."""
        heapq.heappush(self._due, (max(instant, self()), next(self._numbers), work))
        self._set_timer()

    def catch_up(self) -> None:
        """Do all that is due, each at its own instant."""
        if self._at_work is not None:
            return
        now = self()
        try:
            while self._due and self._due[0][0] <= now:
                self._at_work, _, work = heapq.heappop(self._due)
                work()
        finally:
            self._at_work = None
            self._set_timer()

    async def set(self, order: ClockOrder, settled: Callable[[], Awaitable[None]]) -> None:
        """Move the clock forward through all that falls due; it stands still from then on.

        Args:
            order: to when.
            settled: returns when nothing that was set off is under way any more.

        Raises:
            ValueError: for a time before now.
        """
        async with self._advancing:
            start = self()
            goal = order.now if order.now is not None else start + (order.advance or 0)
            if goal < start:
                raise ValueError(f"the clock shows {start:.3f} and only goes forward")
            self._clock.set(ClockOrder(now=start))
            while True:
                self.catch_up()
                await settled()
                if self._due and self._due[0][0] <= self():
                    continue  # set off by an answer
                if not self._due or self._due[0][0] > goal:
                    break
                self._clock.set(ClockOrder(now=self._due[0][0]))
            self._clock.set(ClockOrder(now=goal))

    def state(self) -> dict[str, float | bool | None]:
        """Return the time, whether it passes, and when something falls due next, as JSON."""
        return {**self._clock.state(), "next": self._due[0][0] if self._due else None}

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due and self._at_work is None and self._clock.state()["running"]:
            delay = max(_SHORTEST_TIMER, self._due[0][0] - self())
            self._timer = asyncio.get_running_loop().call_later(delay, self.catch_up)
