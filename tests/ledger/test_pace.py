"""Turns that processes take one after another, however many take them at once."""

import asyncio
from datetime import timedelta

from tallystick.ledger import pace
from tallystick.ledger.database import Ledger

HOUR = timedelta(hours=1)


async def test_turns_lie_apart_whoever_takes_them_and_none_is_saved_up(database_url: str) -> None:
    here, there = Ledger(database_url), Ledger(database_url)
    await _turn(here, "calls", timedelta(microseconds=1))  # and then a pause
    turns = await asyncio.gather(*(_turn(each, "calls", HOUR) for each in [here, there] * 10))
    # In whole hours from now: what has passed meanwhile is far less.
    assert sorted(round(wait / 3600) for wait in turns) == list(range(20))
    assert await _turn(here, "others", HOUR) == 0
    await here.close()
    await there.close()


async def _turn(ledger: Ledger, name: str, apart: timedelta) -> float:
    async with ledger.each() as tx:
        return await pace.take_turn(tx, name, apart)
