"""The same request from everywhere at once: one call, one bill, and everybody gets it."""

import asyncio

from scripts.chaos_parts.comparison import must_tally
from scripts.chaos_parts.load import marked
from tallystick.client import Client
from tallystick.temporal import connect_temporal
from tests.crash.drill import Drill

STARTS = 200


async def test_200_concurrent_starts_of_one_request_are_one_call_and_one_bill(
    stack: Drill,
) -> None:
    await asyncio.gather(stack.start_worker(), stack.start_worker())
    address = stack.stack.temporal.address
    applications = [stack.client, Client(await connect_temporal(address))]
    works = await stack.claude.hold(match=marked("popular"))
    starts = [
        asyncio.create_task(stack.insist("popular", client=applications[number % 2]))
        for number in range(STARTS)
    ]
    await stack.claude.caught(works)
    await stack.claude.release(works)
    replies = await asyncio.gather(*starts)
    stack.ask("popular")
    await stack.finished()

    books = await stack.books()
    must_tally(books)
    assert len(books.calls) == len(books.attempts) == len(books.records) == 1
    assert {reply.id for reply in replies} == {books.records[0]["message_id"]}
    assert all(reply == replies[0] for reply in replies)


async def test_200_concurrent_starts_survive_the_death_of_both_workers(stack: Drill) -> None:
    before = await stack.books()
    while len(stack.stack.workers) < 2:
        await stack.start_worker()
    record = await stack.stops.set("popular-and-unlucky", "record", "committed")
    starts = [asyncio.create_task(stack.insist("popular-and-unlucky")) for _ in range(STARTS)]
    await record.reached()
    # Which of the two has the record in hand is not ours to know: both go.
    for worker in list(stack.stack.workers):
        await stack.stack.kill_worker(worker)
    await record.lift()
    await stack.start_worker()
    replies = await asyncio.gather(*starts)
    stack.ask("popular-and-unlucky")
    await stack.finished()

    books = await stack.books()
    must_tally(books)
    assert len(books.calls) - len(before.calls) == 1
    assert len(books.records) - len(before.records) == 1
    assert all(reply == replies[0] for reply in replies)
