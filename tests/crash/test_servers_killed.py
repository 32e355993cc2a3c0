"""SIGKILL of Temporal and of PostgreSQL under a living worker, with work in flight at both ends.

The worker holds what it knows and waits; nothing it has learnt is asked for a second time.
"""

import asyncio

from scripts.chaos_parts.books import calls_of
from scripts.chaos_parts.comparison import must_tally
from scripts.chaos_parts.load import marked
from tallystick.metering import CHARGE_METER, meter_identifier
from tests.crash.drill import Drill


async def test_temporal_may_die_with_calls_in_flight(stack: Drill) -> None:
    await stack.a_worker()
    held = "Claude-works-through-the-restart"
    works = await stack.claude.hold(match=marked(held))
    answered = "Claude-answers-while-Temporal-is-away"
    answers = await stack.claude.hold(match=marked(answered), at="served")
    told = "Stripe-accepts-while-Temporal-is-away"
    event = meter_identifier("acme", told, CHARGE_METER)
    accepts = await stack.stripe.hold(match=event, at="served")
    for request_id in (held, answered, told):
        stack.ask(request_id)
    await stack.claude.caught(works)
    await stack.claude.caught(answers)
    await stack.stripe.caught(accepts)

    await stack.stack.kill_temporal()
    await stack.claude.release(answers)
    await stack.stripe.release(accepts)
    await until_succeeded(stack, answered)
    stack.ask("asked-while-Temporal-is-away")
    await stack.stack.restart_temporal()
    await stack.claude.release(works)
    replies = await stack.finished()

    books = await stack.books()
    must_tally(books)
    assert len(books.records) == len(replies)
    # What was journalled before or during the outage is not called for again.
    for request_id in (answered, told):
        assert len(calls_of(books, ("acme", request_id))) == 1
        assert [a["outcome"] for a in await stack.attempts(request_id)] == ["succeeded"]


async def test_postgresql_may_die_with_calls_in_flight(stack: Drill) -> None:
    await stack.a_worker()
    before = len((await stack.books()).records)
    answered = "Claude-answers-while-PostgreSQL-is-away"
    works = await stack.claude.hold(match=marked(answered))
    recorded = "PostgreSQL-dies-under-the-record"
    record = await stack.stops.set(recorded, "record", "before")
    told = "Stripe-accepts-while-PostgreSQL-is-away"
    event = meter_identifier("acme", told, CHARGE_METER)
    accepts = await stack.stripe.hold(match=event, at="served")
    for request_id in (answered, recorded, told):
        stack.ask(request_id)
    await stack.claude.caught(works)
    await stack.stripe.caught(accepts)
    await record.reached()

    await stack.stack.kill_postgres()
    calls = len(await stack.claude.journal())
    await stack.claude.release(works)
    await stack.stripe.release(accepts)
    stack.ask("asked-while-PostgreSQL-is-away")
    # The worker has the reply, and nowhere to put it.
    await stack.until_logged("holding a reply until it is back")
    assert len(await stack.claude.journal()) == calls + 1
    await stack.stack.restart_postgres()
    await stack.finished()

    books = await stack.books()
    must_tally(books)
    assert len(books.records) == before + 4
    for request_id in (answered, recorded, told, "asked-while-PostgreSQL-is-away"):
        assert len(calls_of(books, ("acme", request_id))) == 1
        assert [a["outcome"] for a in await stack.attempts(request_id)] == ["succeeded"]


async def test_a_worker_that_holds_a_reply_while_postgresql_is_away_may_die_too(
    stack: Drill,
) -> None:
    """The one case in which a reply that arrived is lost: it is called for again, and both calls
    stand in the attempts."""
    worker = await stack.a_worker()
    request_id = "both-die"
    works = await stack.claude.hold(match=marked(request_id))
    stack.ask(request_id)
    await stack.claude.caught(works)

    calls = len(await stack.claude.journal())
    await stack.stack.kill_postgres()
    await stack.claude.release(works)
    async with asyncio.timeout(60):
        while len(await stack.claude.journal()) == calls:
            await asyncio.sleep(0.02)
    await stack.stack.kill_worker(worker)
    await stack.stack.restart_postgres()
    await stack.start_worker()
    await stack.finished()

    books = await stack.books()
    must_tally(books)
    assert len(calls_of(books, ("acme", request_id))) == 2
    assert [a["outcome"] for a in await stack.attempts(request_id)] == [
        "indeterminate",
        "succeeded",
    ]


async def until_succeeded(stack: Drill, request_id: str) -> None:
    """Wait until the outcome of the request's call is committed."""
    async with asyncio.timeout(60):
        while [a["outcome"] for a in await stack.attempts(request_id)] != ["succeeded"]:
            await asyncio.sleep(0.05)
