"""Every path through the request workflow, each driven to its end by the same customer.

A path returns the id of the request whose history is to be kept.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tallystick.errors import TallystickError
from tallystick.ledger import customers
from tallystick.ledger.tables import Outcome
from tests.replay.stage import Stage
from tests.support.house import House, open_house

Path = Callable[[House], Awaitable[str]]


async def answered(house: House) -> str:
    await house.ask("answered")
    return "answered"


async def asked_again(house: House) -> str:
    await asyncio.gather(*(house.ask("again") for _ in range(5)))
    return "again"


async def started_by_name(house: House) -> str:
    handle = await house.temporal.start_workflow(
        "ClaudeRequest",
        {
            "customer_id": house.customer,
            "request_id": "named",
            "params": {
                "model": "claude-haiku-5-5",
                "max_tokens": 16,
                "messages": [{"role": "user", "content": "hello"}],
            },
        },
        id=house.workflow("named").id,
        task_queue="tallystick",
    )
    await handle.result()
    return "named"


async def malformed(house: House) -> str:
    handle = await house.temporal.start_workflow(
        "ClaudeRequest", {"nonsense": 1}, id=house.workflow("bad").id, task_queue="tallystick"
    )
    with suppress(Exception):
        await handle.result()
    return "bad"


async def refused_by_admission(house: House) -> str:
    with suppress(TallystickError):
        await house.ask("refused", max_input_tokens=1)
    return "refused"


async def refused_by_claude(house: House) -> str:
    with suppress(TallystickError):
        await house.ask("rejected", temperature=1)
    return "rejected"


async def refused_to_another_body(house: House) -> str:
    hold = await house.claude.hold(match="<two>")
    first = asyncio.create_task(house.ask("two"))
    await house.claude.caught(hold)
    with suppress(TallystickError):
        await house.ask("two", max_tokens=65)
    await house.claude.release(hold)
    await first
    return "two"


async def answered_after_retries(house: House) -> str:
    await house.claude.order("error_529", match="<retried>", times=2)
    await house.ask("retried")
    return "retried"


async def not_billed(house: House) -> str:
    await house.claude.order("refusal", match="<free>")
    await house.ask("free")
    return "free"


async def unpriced(house: House) -> str:
    await house.claude.order("unknown_model", match="<unpriced>", model="claude-unheard-of")
    await house.ask("unpriced")
    return "unpriced"


async def parked_while_calling(house: House) -> str:
    await house.claude.order("spend_limit", match="<parked>")
    asking = asyncio.create_task(house.ask("parked"))
    await house.reaches("parked", "stuck")
    await house.workflow("parked").signal("retry_now")
    await asking
    return "parked"


async def parked_while_metering(house: House) -> str:
    async with house.ledger.begin() as tx:
        known = await customers.get(tx, house.customer)
        assert known is not None
        await customers.set_stripe_customer(tx, house.customer, None)
    await house.ask("unmapped")
    await house.reaches("unmapped", "stuck")
    async with house.ledger.begin() as tx:
        await customers.set_stripe_customer(tx, house.customer, known.stripe_customer_id)
    await house.workflow("unmapped").signal("retry_now")
    return "unmapped"


async def cancelled_while_claude_works(house: House) -> str:
    hold = await house.claude.hold(match="<late>")
    asking = asyncio.create_task(house.ask("late"))
    await house.claude.caught(hold)
    await house.workflow("late").cancel()
    await house.claude.release(hold)
    await asking
    return "late"


async def cancelled_between_attempts(house: House) -> str:
    await house.claude.order("rate_limited", match="<early>", retry_after=600)
    asking = asyncio.create_task(house.ask("early"))
    while not [a for a in await house.attempts("early") if a.outcome == Outcome.FAILED]:
        await asyncio.sleep(0.05)
    await house.workflow("early").cancel()
    with suppress(TallystickError):
        await asking
    return "early"


PATHS: dict[str, Path] = {
    path.__name__: path
    for path in (
        answered,
        asked_again,
        started_by_name,
        malformed,
        refused_by_admission,
        refused_by_claude,
        refused_to_another_body,
        answered_after_retries,
        not_billed,
        unpriced,
        parked_while_calling,
        parked_while_metering,
        cancelled_while_claude_works,
        cancelled_between_attempts,
    )
}


async def drive(stage: Stage) -> None:
    """Take each path in one house."""
    async with open_house(stage.temporal, await stage.new_database(), "acme") as house:
        for name, path in PATHS.items():
            request_id = await path(house)
            await house.done(request_id)
            await stage.keep(name, house.workflow(request_id))
