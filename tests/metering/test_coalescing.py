"""Gathering orders into shared batches, each with a result of its own."""

import asyncio
from collections.abc import Sequence

import pytest

from activities.coalescing import Coalescer

NEVER = 3600.0
CURSED = 1313


class Desk:
    """Works on batches of numbers: doubles them, and fails the negative ones."""

    def __init__(self, *, full: int = 10, linger: float = NEVER):
        self.batches: list[list[int]] = []
        self.begun, self.open = asyncio.Event(), asyncio.Event()
        self.open.set()
        self.orders = Coalescer[int, int](self._work, full=full, linger=linger)

    async def _work(self, orders: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(list(orders))
        self.begun.set()
        await self.open.wait()
        if CURSED in orders:
            raise RuntimeError("the batch is cursed")
        return [ValueError(order) if order < 0 else order * 2 for order in orders]

    def submit(self, order: int, size: int = 1) -> "asyncio.Task[int]":
        return asyncio.create_task(self.orders.submit(order, size))


async def test_a_full_batch_goes_at_once_and_each_gets_its_own_result() -> None:
    desk = Desk(full=3)
    assert await asyncio.gather(*(desk.submit(n) for n in (1, 2, 3))) == [2, 4, 6]
    assert desk.batches == [[1, 2, 3]]


async def test_a_batch_that_is_not_full_goes_when_its_oldest_has_waited() -> None:
    desk = Desk(linger=0.01)
    assert await asyncio.gather(desk.submit(1), desk.submit(2)) == [2, 4]
    assert desk.batches == [[1, 2]]


async def test_orders_are_not_split_over_batches() -> None:
    desk = Desk(full=100)
    tasks = [desk.submit(n, size=3) for n in range(40)]
    await asyncio.sleep(0)
    await desk.orders.drain()
    await asyncio.gather(*tasks)
    assert [len(batch) for batch in desk.batches] == [33, 7]


async def test_an_order_larger_than_a_batch_goes_alone() -> None:
    desk = Desk(full=10)
    tasks = [desk.submit(1, size=2), desk.submit(2, size=25)]
    assert await asyncio.gather(*tasks) == [2, 4]
    assert desk.batches == [[1], [2]]


async def test_one_failing_order_fails_alone() -> None:
    desk = Desk(full=3)
    results = await asyncio.gather(*(desk.submit(n) for n in (1, -2, 3)), return_exceptions=True)
    assert [results[0], results[2]] == [2, 6]
    assert isinstance(results[1], ValueError)


async def test_a_batch_that_breaks_fails_all_its_orders_and_no_later_one() -> None:
    desk = Desk(full=2)
    results = await asyncio.gather(desk.submit(CURSED), desk.submit(1), return_exceptions=True)
    assert [type(result) for result in results] == [RuntimeError, RuntimeError]
    assert await asyncio.gather(desk.submit(1), desk.submit(2)) == [2, 4]


async def test_an_order_cancelled_while_gathering_is_never_worked_on() -> None:
    desk = Desk(full=2, linger=0.01)
    gone = desk.submit(1)
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert await desk.submit(2) == 4
    assert desk.batches == [[2]]


async def test_an_order_cancelled_at_work_leaves_the_batch_to_the_others() -> None:
    desk = Desk(full=2)
    desk.open.clear()
    gone, kept = desk.submit(1), desk.submit(2)
    await desk.begun.wait()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    desk.open.set()
    assert await kept == 4


async def test_draining_finishes_what_is_gathered_and_what_is_at_work() -> None:
    desk = Desk(full=2)
    desk.open.clear()
    tasks = [desk.submit(n) for n in (1, 2, 3)]
    await desk.begun.wait()
    draining = asyncio.create_task(desk.orders.drain())
    desk.open.set()
    await draining
    assert await asyncio.gather(*tasks) == [2, 4, 6]
    assert desk.batches == [[1, 2], [3]]
