"""A server that is killed again before it is back must not take the drill with it."""

import asyncio
import tempfile
from pathlib import Path

from scripts.chaos_parts.product import product
from scripts.chaos_parts.schedule import Death


async def test_a_server_that_is_not_back_yet_dies_when_it_is() -> None:
    again = Death(at=0, victim="PostgreSQL", slot=1, down=0)
    # A short path: PostgreSQL's socket lies in it.
    with tempfile.TemporaryDirectory(prefix="tallystick-twice-", ignore_cleanup_errors=True) as at:
        async with product(Path(at), workers=0) as running:
            await asyncio.gather(running.die(again), running.die(again))
            assert running.servers_down == set()
            assert (await running.books()).customers
