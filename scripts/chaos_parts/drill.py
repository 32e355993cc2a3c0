"""The drill: the same load on both sides, the same deaths and faults, and a judgement in the end.

While the load lasts nobody helps: what parks stays parked. Then the faults end, whatever waits for
a person is tried again, and all that is under way may finish, for a bounded time.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
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

LINGER = 15.0
"""Seconds for which the last faults go on striking what is still under way when the load ends: as
long as it takes to notice that a worker is dead."""
FINISH = 600.0
"""Seconds for all that is under way when the load ends. A step that failed often waits for up to
five minutes before it is tried again."""
SATURATED = 20.0
"""Requests a second that faults reckon with where the load is as much as gets through."""
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
            clock = asyncio.get_running_loop().time
            ended = clock()
            await asyncio.wait(self._tasks(), timeout=min(LINGER, order.seconds))
            applied = [await side.stand_ins.disarm() for side in self._sides]
            pending = await self._finish()
            for task in watching:
                task.cancel()
        return await self._judge(applied[0], pending, clock() - ended)

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
        await asyncio.wait([self._waiting[id(self._ours)][ask.key]])

    async def _break(self, events: list[Death | Wave]) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        async with asyncio.TaskGroup() as dying:
            for event in events:
                await asyncio.sleep(began + event.at - clock())
                for side in self._sides:
                    if isinstance(event, Wave):
                        await side.stand_ins.arm(event)
                    else:
                        dying.create_task(side.die(event))
                if isinstance(event, Death):
                    self._deaths[event.victim] += 1

    async def _finish(self) -> set[Key]:
        """Wait until everybody is answered and all is metered; returns what is not."""
        tasks = self._tasks()
        clock = asyncio.get_running_loop().time
        end = clock() + FINISH
        pending: set[Key] = set()
        while clock() < end:
            told = all(task.done() for task in tasks)
            pending = await insist(self._ours.retry_parked, RPCError)
            if told and not pending:
                break
            await asyncio.sleep(LOOK_EVERY)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return pending

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

    def _tasks(self) -> list[asyncio.Task[Heard]]:
        return [task for waiting in self._waiting.values() for task in waiting.values()]

    def _heard(self, side: Product | Naive) -> dict[Key, Heard | None]:
        return {
            key: None if task.cancelled() else task.result()
            for key, task in self._waiting[id(side)].items()
        }

    async def _watch(self, view: View) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        while True:
            view.show(min(clock() - began, self._order.seconds), self._said())
            await asyncio.sleep(LOOK_EVERY)

    def _said(self) -> str:
        waiting = self._waiting[id(self._ours)]
        told = sum(task.done() for task in waiting.values())
        down = sorted(self._ours.servers_down)
        if workers := self._ours.fleet.down():
            down.append(f"{workers} worker(s)")
        return f"{len(waiting)} asked, {told} answered or refused; down: {', '.join(down) or '-'}"


@asynccontextmanager
async def drill(order: Order, home: Path) -> AsyncGenerator[Drill, None]:
    """Start both sides in `home`; they end with the context."""
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(product(home, order.workers))
        theirs = None
        if order.baseline:
            theirs = await stack.enter_async_context(naive(home / "baseline", order.workers))
        yield Drill(order, ours, theirs)
