"""Five hundred requests at once against a cap with room for fifty."""

import asyncio

from tallystick.client import BilledMessage
from tallystick.errors import SPEND_CAP_REACHED, LimitReachedError, UnavailableError
from tests.guards.room import CERTAIN, cap, reserved, spent
from tests.support.house import House

REQUESTS, ROOM_FOR = 500, 50


async def test_parallel_requests_fill_a_cap_to_the_last_and_never_pass_it(house: House) -> None:
    body = {"messages": [{"role": "user", "content": "What is a tally stick?"}], **CERTAIN}
    first = (await house.ask("request-000", **body)).bill.charge_usd
    assert first is not None
    limit = first * ROOM_FOR
    await cap(house, limit)

    async def ask(number: int) -> BilledMessage | LimitReachedError:
        while True:
            try:
                # Not by way of `house.ask`, whose patience is for one request and not for a queue.
                return await house.client.messages.create(
                    customer_id=house.customer,
                    request_id=f"request-{number:03}",
                    model="claude-sonnet-5-5",
                    **body,
                )
            except LimitReachedError as error:
                return error
            except UnavailableError:
                # On a slow machine Temporal gives up on a worker with so much at once, and takes
                # no update until it has tried again.
                await asyncio.sleep(1)

    ends = await asyncio.gather(*(ask(number) for number in range(1, REQUESTS)))

    refused = [end for end in ends if isinstance(end, LimitReachedError)]
    assert {error.type for error in refused} == {SPEND_CAP_REACHED.type}
    # All cost the same, so the cap is met exactly: nothing beyond it, and no room left unused.
    assert await spent(house.ledger) == [first] * ROOM_FOR
    assert len(refused) == REQUESTS - ROOM_FOR
    assert await reserved(house.ledger) == {}
    # A refused request never reached Claude.
    assert len(await house.claude.journal()) == ROOM_FOR
