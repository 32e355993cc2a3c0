"""SIGKILL of the worker process, at every point where it could hurt.

Each request is brought to a point of its own: by a hold in a stand-in, or by a stop in PostgreSQL
where no stand-in sees the worker. Then the process is killed, and a new one finds what is left.
Waiting for the old one to be given up is done once for all.
"""

from dataclasses import dataclass

import pytest
import pytest_asyncio

from scripts.chaos_parts.books import Books, Key, calls_of
from scripts.chaos_parts.comparison import differences
from scripts.chaos_parts.load import marked
from tallystick.client import BilledMessage
from tallystick.metering import CHARGE_METER, meter_identifier
from tests.crash.drill import Drill


@dataclass(frozen=True, slots=True)
class Left:
    """What a crash leaves: the outcomes of the attempts, and how often Claude served."""

    attempts: tuple[str, ...]
    calls: int


ONE_CALL = Left(("succeeded",), 1)
"""Nothing was called twice."""
NO_CALL = Left(("indeterminate", "succeeded"), 1)
"""The first attempt never reached Claude, which only Claude knows. An attempt that is under way to
PostgreSQL is one too: a single statement is finished by the server, whoever hears of it."""
LOST_CALL = Left(("indeterminate", "succeeded"), 2)
"""Claude served a reply to nobody; the attempt says that its cost is open."""

POINTS = {
    "before-the-attempt-is-committed": NO_CALL,
    "before-the-call": NO_CALL,
    "while-Claude-works": LOST_CALL,
    "after-Claude-served": LOST_CALL,
    "after-the-outcome-is-committed": ONE_CALL,
    "before-the-record-is-committed": ONE_CALL,
    "after-the-record-is-committed": ONE_CALL,
    "after-the-reply-before-metering": ONE_CALL,
    "after-the-send-is-noted": ONE_CALL,
    "after-Stripe-accepted": ONE_CALL,
    "after-the-delivery-is-noted": ONE_CALL,
}


@dataclass(frozen=True, slots=True)
class Aftermath:
    replies: dict[Key, BilledMessage]
    books: Books


@pytest_asyncio.fixture(scope="module")
async def aftermath(stack: Drill) -> Aftermath:
    """Kill the worker at every point, let a new one finish, and read the books."""
    await kill_between_admission_and_reply(stack)
    await kill_before_the_send(stack)
    await kill_before_the_acknowledgement(stack)
    await kill_before_the_receipt(stack)
    await stack.start_worker()
    return Aftermath(await stack.finished(), await stack.books())


async def kill_between_admission_and_reply(stack: Drill) -> None:
    # Waits for company for an hour: the reply is out long before anything is metered.
    worker = await stack.start_worker(TALLYSTICK_METER_LINGER="3600")
    await stack.insist("after-the-reply-before-metering")
    stack.ask("after-the-reply-before-metering")

    stops = [
        await stack.stops.set("before-the-attempt-is-committed", "begin attempt", "before"),
        await stack.stops.set("after-the-outcome-is-committed", "end attempt", "committed"),
        await stack.stops.set("before-the-record-is-committed", "record", "before"),
        await stack.stops.set("after-the-record-is-committed", "record", "committed"),
    ]
    holds = [
        await stack.claude.hold(match=marked("before-the-call")),
        await stack.claude.hold(match=marked("while-Claude-works")),
        await stack.claude.hold(match=marked("after-Claude-served"), at="served"),
    ]
    # Strikes when the hold lets go: what the dead worker sent is never served.
    await stack.claude.order("reset", match=marked("before-the-call"))
    for point in list(POINTS)[:7]:
        stack.ask(point)
    for hold in holds:
        await stack.claude.caught(hold)
    for stop in stops:
        await stop.reached()

    await stack.stack.kill_worker(worker)
    for hold in holds:
        await stack.claude.release(hold)
    for stop in stops:
        await stop.lift()


async def kill_before_the_send(stack: Drill) -> None:
    worker = await stack.start_worker()
    # A fresh worker opens a session before its first send and after it has noted that it sends.
    hold = await stack.stripe.hold(match="meter_event_session")
    stack.ask("after-the-send-is-noted")
    await stack.stripe.caught(hold)
    await stack.stack.kill_worker(worker)
    await stack.stripe.release(hold)


async def kill_before_the_acknowledgement(stack: Drill) -> None:
    point = "after-Stripe-accepted"
    event = meter_identifier("acme", point, CHARGE_METER)
    worker = await stack.start_worker()
    hold = await stack.stripe.hold(match=event, at="served")
    stack.ask(point)
    await stack.stripe.caught(hold)
    await stack.stack.kill_worker(worker)
    await stack.stripe.release(hold)
    assert event in [entry["identifier"] for entry in (await stack.books()).accepted]


async def kill_before_the_receipt(stack: Drill) -> None:
    worker = await stack.start_worker()
    point = "after-the-delivery-is-noted"
    stop = await stack.stops.set(point, "note delivery", "committed")
    stack.ask(point)
    await stop.reached()
    await stack.stack.kill_worker(worker)
    await stop.lift()


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_killed_at_this_point_leaves_one_answer_and_one_bill(
    aftermath: Aftermath, point: str
) -> None:
    key, books = ("acme", point), aftermath.books
    attempts = sorted(
        (a for a in books.attempts if a["request_id"] == point), key=lambda a: a["number"]
    )
    left = Left(tuple(a["outcome"] for a in attempts), len(calls_of(books, key)))
    assert left == POINTS[point]
    (record,) = [r for r in books.records if r["request_id"] == point]
    assert record["attempt_id"] == attempts[-1]["attempt_id"]
    assert record["attempts"] == len(attempts)
    reply = aftermath.replies[key]
    assert reply.id == record["message_id"]
    assert reply.bill.charge_usd is not None
    assert int(reply.bill.charge_usd * 10**9) == record["charge_nano_usd"]


def test_after_all_the_crashes_the_three_records_tally(aftermath: Aftermath) -> None:
    assert differences(aftermath.books) == []
    assert len(aftermath.books.records) == len(POINTS)


@pytest.mark.parametrize("point", POINTS)
async def test_asking_again_after_the_crash_brings_the_same_answer_and_calls_nobody(
    stack: Drill, aftermath: Aftermath, point: str
) -> None:
    assert await stack.insist(point) == aftermath.replies["acme", point]
    assert len((await stack.books()).calls) == len(aftermath.books.calls)
