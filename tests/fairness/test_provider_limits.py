"""Limits of calls to Claude and to Stripe, which two worker processes keep together.

Judged by the instants at which the stand-ins saw the calls. However a stretch of calls is cut out,
it took the time that the limit asks for, but for a few that may bunch. A slow machine takes longer
and proves the same.
"""

import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest_asyncio
from temporalio.api.enums.v1 import EventType

from scripts.chaos_parts.comparison import must_tally
from tallystick.contracts import request_workflow_id
from tests.crash.drill import CUSTOMERS, Drill, drill

CLAUDE_RPM, STRIPE_RPS = 240, 10
REQUESTS = 40
"""They make a call to Claude and three to Stripe each."""
BUNCHED = 15
"""Calls beyond the limit's share of a stretch: a worker that was not run for a while makes up for
turns that it had, and Temporal's limit lets a second's worth come at once."""


@pytest_asyncio.fixture
async def stack() -> AsyncIterator[Drill]:
    # Not in pytest's own folder, under which PostgreSQL could not run as another user.
    with tempfile.TemporaryDirectory(prefix="tallystick-", ignore_cleanup_errors=True) as home:
        async with drill(Path(home)) as running:
            yield running


async def test_two_workers_keep_one_limit_and_nothing_is_lost(stack: Drill) -> None:
    limits = {
        "TALLYSTICK_CLAUDE_RPM": str(CLAUDE_RPM),
        "TALLYSTICK_STRIPE_RPS": str(STRIPE_RPS),
        "TALLYSTICK_STRIPE_TRANSPORT": "events",
    }
    workers = {(await stack.start_worker(**limits)).pid for _ in range(2)}
    begun = len(await _arrivals(stack))
    for number in range(REQUESTS):
        stack.ask(f"r-{number}", customer=CUSTOMERS[number % len(CUSTOMERS)])
    await stack.finished()

    books = await stack.books()
    must_tally(books)
    assert len(books.calls) == REQUESTS
    assert len(books.accepted) == 3 * REQUESTS
    assert await _hands(stack) == workers
    to_stripe = (await _arrivals(stack))[begun:]
    assert len(to_stripe) >= 3 * REQUESTS
    _must_keep("Claude", [call["served_at"] for call in books.calls], CLAUDE_RPM / 60)
    _must_keep("Stripe", to_stripe, STRIPE_RPS)


async def _arrivals(stack: Drill) -> list[float]:
    return [each["at"] for each in (await stack.stripe.get("arrivals"))["arrivals"]]


async def _hands(stack: Drill) -> set[int]:
    """Return the processes that have metered, by the histories of all requests."""
    hands: set[int] = set()
    for customer, request_id in stack.asked:
        handle = stack.temporal.get_workflow_handle(request_workflow_id(customer, request_id))
        history = await handle.fetch_history()
        *_, metered = (
            event.activity_task_started_event_attributes
            for event in history.events
            if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED
        )
        hands.add(int(metered.identity.split("@")[0]))
    return hands


def _must_keep(service: str, instants: Sequence[float], per_second: float) -> None:
    earlier, most = float("inf"), 0.0
    for number, at in enumerate(sorted(instants)):
        # From the call numbered a, at the instant A, to b at B there are b - a + 1 calls, and a
        # share of (B - A) x limit.
        spent = number - at * per_second
        earlier = min(earlier, spent)
        most = max(most, spent - earlier + 1)
    seconds = max(instants) - min(instants)
    print(
        f"{service}: {len(instants)} calls in {seconds:.1f} s, {len(instants) / seconds:.1f} a "
        f"second of {per_second:g}; at the most {most:.1f} beyond a stretch's share"
    )
    assert most <= BUNCHED
