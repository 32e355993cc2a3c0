"""Traffic, faults on both sides, and processes that die at moments nobody chose.

The drills with chosen points prove what we thought of; this one looks for what we did not. Which
requests there are and what dies in which order follows from the seed; the moments do not, since
they are the machine's.
"""

import asyncio
import random

import pytest

from scripts.chaos_parts.comparison import must_tally, served_and_billed
from scripts.chaos_parts.load import body
from tests.crash.drill import CUSTOMERS, Drill

CLAUDE_FAULTS = {
    "rate_limited": 0.03,
    "error_500": 0.03,
    "error_529": 0.03,
    "reset": 0.02,
    "undelivered": 0.03,
    "cut_stream": 0.03,
    "truncated_stream": 0.03,
    "refusal": 0.02,
}
STRIPE_FAULTS = {"no_answer": 0.1, "server_error": 0.05, "rate_limited": 0.05, "reset": 0.05}
TRANSPORTS = ("stream", "events")


@pytest.mark.parametrize(
    ("seed", "requests", "deaths"),
    [
        (1, 30, ["worker", "postgres", "worker", "temporal", "worker"]),
        pytest.param(
            2,
            300,
            [*["worker"] * 6, "postgres", "temporal"] * 4,
            marks=pytest.mark.long,
        ),
        pytest.param(
            3,
            300,
            [*["worker"] * 6, "postgres", "temporal"] * 4,
            marks=pytest.mark.long,
        ),
    ],
)
async def test_whatever_dies_whenever_the_three_records_tally(
    stack: Drill, seed: int, requests: int, deaths: list[str]
) -> None:
    dice = random.Random(seed)
    before = len((await stack.books()).records)
    await disturb(stack, seed)
    while len(stack.stack.workers) < 2:
        await start_worker(stack, dice.choice(TRANSPORTS))

    killing = asyncio.create_task(kill(stack, dice.sample(deaths, len(deaths)), dice.random()))
    for number in range(requests):
        stack.ask(
            f"random-{seed}-{number}",
            customer=dice.choice(CUSTOMERS),
            **body(f"random-{seed}-{number}", dice),
        )
        await asyncio.sleep(dice.expovariate(requests / (3 * len(deaths))))
    await killing
    await stack.claude.disarm()
    await stack.stripe.disarm()
    replies = await stack.finished()

    books = await stack.books()
    must_tally(books)
    assert len(books.records) == before + requests
    assert {reply.id for reply in replies.values()} == {r["message_id"] for r in books.records}
    assert all(served_and_billed(books).values()), "every kind of token was in the traffic"


async def disturb(stack: Drill, seed: int) -> None:
    for control, rates in ((stack.claude, CLAUDE_FAULTS), (stack.stripe, STRIPE_FAULTS)):
        await control.post("faults", {"rates": rates, "seed": seed})
    # Long enough for a death to find calls in flight.
    await stack.claude.post("latency", {"seconds": 0.5})


async def kill(stack: Drill, deaths: list[str], seed: float) -> None:
    """Let one thing after the other die, and be started again."""
    dice = random.Random(seed)
    for victim in deaths:
        await asyncio.sleep(dice.uniform(0.5, 3))
        match victim:
            case "worker":
                await stack.stack.kill_worker(dice.choice(stack.stack.workers))
                await start_worker(stack, dice.choice(TRANSPORTS))
            case "postgres":
                await stack.stack.kill_postgres()
                await asyncio.sleep(dice.uniform(0, 2))
                await stack.stack.restart_postgres()
            case _:
                await stack.stack.kill_temporal()
                await asyncio.sleep(dice.uniform(0, 2))
                await stack.stack.restart_temporal()


async def start_worker(stack: Drill, transport: str) -> None:
    await stack.start_worker(
        TALLYSTICK_STRIPE_TRANSPORT=transport,
        # So much bad luck is not meant to meet one request.
        TALLYSTICK_MAX_UNKNOWN_OUTCOMES="50",
    )
