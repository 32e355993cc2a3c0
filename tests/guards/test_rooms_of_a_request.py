"""Caps seen from a request: what is refused, what waits, and that room always comes back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from decimal import Decimal

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.service import RPCError

from tallystick.contracts import BillingState
from tallystick.errors import (
    CONVERSATION_CAP_REACHED,
    SPEND_CAP_REACHED,
    ClaudeError,
    LimitReachedError,
    RequestCancelledError,
)
from tests.guards.room import CERTAIN, cap, reserved
from tests.support.house import House
from workflows.claude_request import LEDGER_STEP_HOLD

SHORT = {"messages": [{"role": "user", "content": "What is a tally stick?"}], **CERTAIN}


async def _charge(house: House, request_id: str = "r-first") -> Decimal:
    """Return what a request with the body `SHORT` is charged."""
    charged = (await house.ask(request_id, **SHORT)).bill.charge_usd
    assert charged is not None
    return charged


async def test_a_spend_cap_refuses_with_the_figures_and_serves_once_it_is_raised(
    house: House,
) -> None:
    charge = await _charge(house)
    await cap(house, charge)
    with pytest.raises(LimitReachedError, match=r"spend cap .* customer cap .* --spend-cap") as no:
        await house.ask("r-1", **SHORT)
    assert no.value.type == SPEND_CAP_REACHED.type
    assert {name: Decimal(no.value.details[name]) for name in ("limit_usd", "spent_usd")} == {
        "limit_usd": charge,
        "spent_usd": charge,
    }
    assert Decimal(no.value.details["estimate_usd"]) == charge
    assert await house.billing_state("r-1") == BillingState.REFUSED
    assert await house.attempts("r-1") == []
    await cap(house, charge * 2)
    assert (await house.ask("r-2", **SHORT)).bill.charge_usd == charge
    await cap(house, None)
    await house.ask("r-3", **SHORT)


async def test_a_conversation_stops_at_its_cap_until_the_caller_lifts_it(house: House) -> None:
    talk = {**SHORT, "conversation_id": "talk"}
    charge = (await house.ask("r-1", **talk)).bill.charge_usd
    assert charge is not None
    tight = {"max_conversation_usd": charge}
    with pytest.raises(LimitReachedError, match="max_conversation_usd") as refused:
        await house.ask("r-2", **talk, **tight)
    assert refused.value.type == CONVERSATION_CAP_REACHED.type
    await house.ask("r-3", **{**talk, "conversation_id": "another"}, **tight)
    await house.ask("r-4", **SHORT, **tight)  # in no conversation at all
    await house.ask("r-5", **talk, max_conversation_usd=charge * 2)
    await house.ask("r-6", **talk)  # under the setting's own cap
    assert await reserved(house.ledger) == {}


async def test_the_caller_is_warned_from_four_fifths_of_a_cap_on(house: House) -> None:
    charge = await _charge(house)
    await cap(house, charge * 1_000)
    assert (await house.ask("r-1", **SHORT)).bill.warnings == ()
    await cap(house, charge * 4)
    (warning,) = (await house.ask("r-2", **SHORT)).bill.warnings
    assert warning.startswith("the customer's spend cap for this month of $")


@asynccontextmanager
async def _full_house(house: House) -> AsyncIterator[Decimal]:
    """Hold a request in Claude whose worst case takes all the room; it costs less in the end.

    Yields what it reserves. A request like `SHORT` has to wait until the block ends.
    """
    charge = await _charge(house)
    await cap(house, Decimal(1))
    hold = await house.claude.hold(match="hold me")
    body = {"messages": [{"role": "user", "content": "hold me"}], "max_tokens": 1_000}
    held = asyncio.create_task(house.ask("r-held", **body))
    await house.claude.caught(hold)
    (amount,) = (await reserved(house.ledger)).values()
    await cap(house, charge + amount)
    yield amount
    await house.claude.release(hold)
    charged = (await held).bill.charge_usd
    assert charged is not None
    assert charged + charge < amount


async def test_a_request_waits_for_room_that_another_only_reserves(house: House) -> None:
    async with _full_house(house) as amount:
        waiting = asyncio.create_task(house.ask("r-waits", **SHORT))
        await _is_waiting(house, "r-waits")
        assert await reserved(house.ledger) == {"r-held": amount}
        assert await house.attempts("r-waits") == []
        # Each look is further off than the one before, or a day of them would fill the history.
        first, second = await _waits(house, "r-waits", 2)
        assert LEDGER_STEP_HOLD < first < second
    await waiting
    assert await reserved(house.ledger) == {}


async def test_a_request_that_waits_for_room_can_be_cancelled(house: House) -> None:
    async with _full_house(house) as amount:
        waiting = asyncio.create_task(house.ask("r-waits", **SHORT))
        await _is_waiting(house, "r-waits")
        await house.workflow("r-waits").cancel()
        with pytest.raises(RequestCancelledError):
            await waiting
        assert await reserved(house.ledger) == {"r-held": amount}


async def test_a_request_that_fails_gives_its_room_back(house: House) -> None:
    await cap(house, Decimal(1))
    await house.claude.order("error_400")
    with pytest.raises(ClaudeError):
        await house.ask("r-1")
    assert await reserved(house.ledger) == {}


async def test_a_request_cancelled_in_flight_gives_its_room_back_with_its_bill(
    house: House,
) -> None:
    await cap(house, Decimal(1))
    hold = await house.claude.hold(match="r-1")
    asked = asyncio.create_task(house.ask("r-1"))
    await house.claude.caught(hold)
    assert set(await reserved(house.ledger)) == {"r-1"}
    await house.workflow("r-1").cancel()
    await house.claude.release(hold)
    ends = await asyncio.gather(asked, return_exceptions=True)
    await house.done("r-1")
    assert await reserved(house.ledger) == {}
    # Either Claude was stopped in time or its answer was billed; never neither and never both.
    answered = not isinstance(ends[0], BaseException)
    assert len(await house.records("r-1")) == answered


async def test_a_cap_adds_no_event_to_a_request_that_is_served(house: House) -> None:
    await house.ask("r-free")
    await cap(house, Decimal(1))
    await house.ask("r-capped", conversation_id="talk")
    for request_id in ("r-free", "r-capped"):
        await house.done(request_id)
    assert await house.events("r-capped") == await house.events("r-free")


async def test_a_request_without_a_cap_fails_without_an_event_for_release(house: House) -> None:
    await house.claude.order("error_400", times=2)
    with pytest.raises(ClaudeError):
        await house.ask("r-free")
    await cap(house, Decimal(1))
    with pytest.raises(ClaudeError):
        await house.ask("r-capped")
    for request_id in ("r-free", "r-capped"):
        with pytest.raises(WorkflowFailureError):
            await house.workflow(request_id).result()
    free, capped = await house.events("r-free"), await house.events("r-capped")
    assert (free.count("MARKER_RECORDED"), capped.count("MARKER_RECORDED")) == (1, 2)


async def _waits(house: House, request_id: str, number: int) -> list[timedelta]:
    """Return how long the request was going to wait each time, once there are so many."""
    async with asyncio.timeout(60):
        while True:
            history = await house.workflow(request_id).fetch_history()
            waits = [
                event.timer_started_event_attributes.start_to_fire_timeout.ToTimedelta()
                for event in history.events
                if event.HasField("timer_started_event_attributes")
            ]
            if len(waits) >= number:
                return waits[:number]
            await asyncio.sleep(0.1)


async def _is_waiting(house: House, request_id: str) -> None:
    """Wait until the request has looked for room twice: a timer of the server's has fired."""
    async with asyncio.timeout(60):
        while True:
            with suppress(RPCError):  # not started yet
                if "TIMER_FIRED" in await house.events(request_id):
                    return
            await asyncio.sleep(0.1)
