"""A worker that was taken for dead and was only frozen: the crash that a SIGKILL cannot show.

It wakes up in the middle of what another worker has finished meanwhile, believes that it is still
in charge, and does the rest: commits its reply, inserts its record, sends its events.
"""

import signal

from scripts.chaos_parts.books import calls_of
from scripts.chaos_parts.comparison import must_tally
from scripts.chaos_parts.load import marked
from tallystick.metering import CHARGE_METER, meter_identifier
from tests.crash.drill import Drill


async def test_a_worker_that_wakes_up_after_another_has_finished_its_work_changes_no_bill(
    stack: Drill,
) -> None:
    frozen = await stack.start_worker()
    calling, recording, metering = "frozen-calling", "frozen-recording", "frozen-metering"
    answers = await stack.claude.hold(match=marked(calling), at="served")
    record = await stack.stops.set(recording, "record", "before")
    event = meter_identifier("acme", metering, CHARGE_METER)
    accepts = await stack.stripe.hold(match=event, at="served")
    for request_id in (calling, recording, metering):
        stack.ask(request_id)
    await stack.claude.caught(answers)
    await record.reached()
    await stack.stripe.caught(accepts)

    frozen.send_signal(signal.SIGSTOP)
    try:
        await record.remove()
        await stack.start_worker()
        replies = await stack.finished()
        before = await stack.books()
        must_tally(before)
        await record.release()
        await stack.claude.release(answers)
        await stack.stripe.release(accepts)
    finally:
        frozen.send_signal(signal.SIGCONT)
    # A worker that stops finishes first what it has in hand.
    frozen.send_signal(signal.SIGTERM)
    assert await frozen.wait() == 0
    stack.stack.workers.remove(frozen)

    after = await stack.books()
    must_tally(after)
    assert after.records == before.records
    assert after.outbox == before.outbox
    # Both of its calls were answered in the end; the first to be recorded is the one billed.
    assert len(calls_of(after, ("acme", calling))) == 2
    assert [a["outcome"] for a in await stack.attempts(calling)] == ["succeeded", "succeeded"]
    for request_id in (recording, metering):
        assert len(calls_of(after, ("acme", request_id))) == 1
    for request_id in (calling, recording, metering):
        assert await stack.insist(request_id) == replies["acme", request_id]
