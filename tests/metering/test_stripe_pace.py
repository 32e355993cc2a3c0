"""A client that is held to so many calls: what waits, and what a database that is away means."""

import asyncio
from datetime import timedelta

import pytest
import stripe
from pydantic import SecretStr

from activities.stripe_clients import refusal, stripe_client
from activities.stripe_pace import PACE
from tallystick.embedded import free_port
from tallystick.errors import Action
from tallystick.ledger import pace
from tallystick.ledger.database import Ledger
from tallystick.services import Endpoints
from tallystick.settings import Settings
from tests.sandbox.stripe_stand import LIVE, StripeStand, stripe_stand

AN_HOUR_APART = Settings(stripe_rps=1 / 3600)


async def test_of_calls_that_wait_only_the_first_has_a_turn(
    ledger: Ledger, database_url: str
) -> None:
    async with stripe_stand() as stand:
        async with stripe_client(_at(stand), AN_HOUR_APART, database_url) as client:
            await client.v1.customers.list_async()
            waiting = [asyncio.create_task(client.v1.customers.list_async()) for _ in range(5)]
            # As soon as the first of them has its turn, in an hour, the next is to be had in two.
            while await _turn(ledger, timedelta(0)) < 1.5 * 3600:
                await asyncio.sleep(0.01)
            for call in waiting:
                call.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        assert round(await _turn(ledger, timedelta(0)) / 3600) == 2
        assert sum(stand.account.calls.values()) == 1


async def test_without_turns_no_call_is_made_and_it_is_to_be_tried_again() -> None:
    nowhere = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    async with stripe_stand() as stand:
        async with stripe_client(_at(stand), AN_HOUR_APART, nowhere) as client:
            with pytest.raises(stripe.APIConnectionError, match="no turn") as refused:
                await client.v1.customers.list_async()
        assert not stand.account.calls
    assert refusal(refused.value).row.action is Action.RETRY


def _at(stand: StripeStand) -> Endpoints:
    return Endpoints(SecretStr("none"), None, SecretStr(LIVE), stand.url, stand.url, frozenset())


async def _turn(ledger: Ledger, apart: timedelta) -> float:
    async with ledger.each() as tx:
        return await pace.take_turn(tx, PACE, apart)
