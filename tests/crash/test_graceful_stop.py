"""SIGTERM: a worker finishes what it has begun, takes nothing new, and hands over."""

import signal

from temporalio.api.enums.v1 import EventType

from scripts.chaos_parts.books import calls_of
from scripts.chaos_parts.comparison import must_tally
from scripts.chaos_parts.load import marked
from tallystick.contracts import request_workflow_id
from tallystick.metering import CHARGE_METER, meter_identifier
from tests.crash.drill import Drill


async def test_a_worker_that_is_told_to_stop_finishes_its_calls_and_takes_no_others(
    stack: Drill,
) -> None:
    leaving = await stack.start_worker()
    works = await stack.claude.hold(match=marked("Claude-works"))
    event = meter_identifier("acme", "Stripe-works", CHARGE_METER)
    accepts = await stack.stripe.hold(match=event)
    stack.ask("Claude-works")
    stack.ask("Stripe-works")
    await stack.claude.caught(works)
    await stack.stripe.caught(accepts)

    leaving.send_signal(signal.SIGTERM)
    await stack.until_logged("stopping: calls in flight")
    await stack.start_worker()
    later = [f"asked-later-{number}" for number in range(10)]
    for request_id in later:
        stack.ask(request_id)
    for request_id in later:
        await stack.asked["acme", request_id]
    assert leaving.returncode is None
    assert leaving.pid not in {await called_by(stack, request_id) for request_id in later}

    await stack.claude.release(works)
    await stack.stripe.release(accepts)
    assert await leaving.wait() == 0
    stack.stack.workers.remove(leaving)
    await stack.finished()

    books = await stack.books()
    must_tally(books)
    for request_id in ("Claude-works", "Stripe-works"):
        assert await called_by(stack, request_id) == leaving.pid
        assert len(calls_of(books, ("acme", request_id))) == 1
        assert [a["outcome"] for a in await stack.attempts(request_id)] == ["succeeded"]
    # One send of each event: the call that was under way at the signal was let finish.
    sent = [entry["identifier"] for entry in books.accepted]
    assert len(sent) == len(set(sent))


async def called_by(stack: Drill, request_id: str) -> int:
    """Return the process that made the request's Claude call, as Temporal's history tells it."""
    workflow_id = request_workflow_id("acme", request_id)
    history = await stack.temporal.get_workflow_handle(workflow_id).fetch_history()
    started = next(
        event.activity_task_started_event_attributes
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED
    )
    return int(started.identity.split("@")[0])
