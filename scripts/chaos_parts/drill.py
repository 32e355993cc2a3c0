"""The drill: the same load on both sides, the same deaths and faults, and a judgement in the end.

While the load lasts nobody helps: what parks stays parked. Then the faults end, whatever waits for
a person is tried again, and all that is under way may finish, for a bounded time.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from temporalio.service import RPCError

from .baseline import METERS
from .books import Key
from .heard import Heard
from .insisting import insist
from .load import Ask, Load
from .mischief import Applied
from .naive import Naive, naive
from .outcome import Order, Outcome
from .product import CUSTOMERS, Product, product
from .schedule import Death, Wave, deaths, waves
from .show import View
from .verdict import judge, judge_naive

SILENCE = 20.0
"""Seconds without an answer after which nobody is waited for under faults: longer than it takes to
notice that a worker is dead."""
FINISH = 600.0
"""Seconds without any progress after which what is still under way is taken for stuck. A step that
failed often waits for up to five minutes before it is tried again."""
SATURATED = 20.0
"""Requests a second that faults reckon with where the load is as much as gets through."""
IMPATIENCE = 10.0
"""Seconds after which one who saturates asks the next, while the last may be parked for long."""
LOOK_EVERY = 0.5


class Drill:
    """Runs one order on the running sides."""

    def __init__(self, order: Order, ours: Product, theirs: Naive | None):
        self._order, self._ours, self._theirs = order, ours, theirs
        self._sides: list[Product | Naive] = [ours, *([theirs] if theirs else [])]
        self._load = Load(order.seed, CUSTOMERS)
        self._waiting: dict[int, dict[Key, asyncio.Task[Heard]]] = {
            id(side): {} for side in self._sides
        }
        self._deaths = Counter[str]()
        self._clock = asyncio.get_running_loop().time

    async def run(self, view: View) -> Outcome:
        """Load, break, finish and judge."""
        order = self._order
        for side in self._sides:
            await side.stand_ins.slow_down()
        known = await self._ours.stand_ins.known()
        rate = SATURATED if order.saturate else order.rate
        events = [
            *waves(order.seed, order.seconds, rate, known),
            *deaths(order.seed, order.seconds, order.workers),
        ]
        async with asyncio.TaskGroup() as group:
            watching = [
                group.create_task(each)
                for each in (self._watch(view), self._ours.fleet.watch_memory())
            ]
            async with asyncio.TaskGroup() as breaking:
                breaking.create_task(self._break(sorted(events, key=lambda each: each.at)))
                breaking.create_task(self._ask_all())
            ended = self._clock()
            await self._until_told_or_parked()
            applied = [await side.stand_ins.disarm() for side in self._sides]
            pending = await self._finish()
            for task in watching:
                task.cancel()
        return await self._judge(applied[0], pending, self._clock() - ended)

    async def _ask_all(self) -> None:
        order = self._order
        if order.saturate:
            await self._load.saturating(order.saturate, order.seconds, self._ask_and_wait)
            return
        async for ask in self._load.steady(order.rate, order.seconds):
            self._ask(ask)

    def _ask(self, ask: Ask) -> None:
        for side in self._sides:
            self._waiting[id(side)][ask.key] = asyncio.create_task(side.ask(ask))

    async def _ask_and_wait(self, ask: Ask) -> None:
        self._ask(ask)
        await asyncio.wait([self._waiting[id(self._ours)][ask.key]], timeout=IMPATIENCE)

    async def _break(self, events: list[Death | Wave]) -> None:
        began = self._clock()
        async with asyncio.TaskGroup() as dying:
            for event in events:
                await asyncio.sleep(began + event.at - self._clock())
                for side in self._sides:
                    if isinstance(event, Wave):
                        await side.stand_ins.arm(event)
                    else:
                        dying.create_task(side.die(event))
                if isinstance(event, Death):
                    self._deaths[event.victim] += 1

    async def _until_told_or_parked(self) -> None:
        """Let the last faults go on striking what the load has left."""
        told, moved = 0, self._clock()
        while self._clock() - moved < SILENCE:
            running = await insist(self._ours.running, RPCError)
            waiting = [
                key for key, task in self._waiting[id(self._ours)].items() if not task.done()
            ]
            if all(running.get(key) for key in waiting):
                return
            if told != (told := self._told()):
                moved = self._clock()
            await asyncio.sleep(_pause(running))

    async def _finish(self) -> set[Key]:
        """Wait until everybody is answered and all is metered; returns what is not."""
        tasks = [task for waiting in self._waiting.values() for task in waiting.values()]
        left, moved = 0, self._clock()
        running: dict[Key, bool] = {}
        while self._clock() - moved < FINISH:
            waiting = sum(not task.done() for task in tasks)
            running = await insist(self._ours.running, RPCError)
            if left != (left := waiting + len(running)):
                moved = self._clock()
            elif not left:
                break
            for key, parked in running.items():
                if parked:
                    await self._ours.retry(key)
            await asyncio.sleep(_pause(running))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return set(running)

    async def _judge(self, applied: Applied, pending: set[Key], settled: float) -> Outcome:
        ours = judge(await self._ours.books(), self._heard(self._ours), pending)
        theirs = None
        if self._theirs is not None:
            calls, accepted = await self._theirs.records()
            theirs = judge_naive(calls, accepted, self._heard(self._theirs), len(METERS))
        fleet = self._ours.fleet
        return Outcome(
            ours, theirs, dict(self._deaths), applied, fleet.memory(), fleet.fell, round(settled, 1)
        )

    def _heard(self, side: Product | Naive) -> dict[Key, Heard | None]:
        return {key: _heard(task) for key, task in self._waiting[id(side)].items()}

    async def _watch(self, view: View) -> None:
        began = self._clock()
        while True:
            view.show(min(self._clock() - began, self._order.seconds), self._said())
            await asyncio.sleep(LOOK_EVERY)

    def _said(self) -> str:
        down = sorted(self._ours.servers_down)
        if workers := self._ours.fleet.down():
            down.append(f"{workers} worker(s)")
        asked = len(self._load.asked)
        return f"{asked} asked, {self._told()} answered or refused; down: {', '.join(down) or '-'}"

    def _told(self) -> int:
        return sum(task.done() for task in self._waiting[id(self._ours)].values())


def _heard(task: asyncio.Task[Heard]) -> Heard | None:
    if task.cancelled():
        return None
    error = task.exception()
    return Heard(told=repr(error)) if error else task.result()


def _pause(running: Mapping[Key, bool]) -> float:
    """Look more rarely where there is much to look at, which costs the server."""
    return LOOK_EVERY + len(running) / 100


@asynccontextmanager
async def drill(order: Order, home: Path) -> AsyncGenerator[Drill, None]:
    """Start both sides in `home`; they end with the context."""
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(product(home, order.workers))
        theirs = None
        if order.baseline:
            theirs = await stack.enter_async_context(naive(home / "baseline", order.workers))
        yield Drill(order, ours, theirs)
