"""Holds calls to Stripe to so many a second, over all processes (`TALLYSTICK_STRIPE_RPS`).

One activity may make one call to Stripe or hundreds, and shares calls with others, so a limit on
activities would limit nothing; the pace is kept where the SDK sends. Each call first takes a turn
in the ledger's database (`ledger.pace`) and waits for it. A client's calls stand in line, and only
the first of them takes a turn. So clients come one after another, many waiting meter events hold up
no invoice, and a call that is given up in the line costs nobody a turn.

Waiting is all that a limit does: what waits is an open activity, or behind one, in Temporal. Turns
need the database, and without it no call is made: to the caller that is a Stripe out of reach.
"""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import stripe

from tallystick.ledger import pace
from tallystick.ledger.database import Ledger, LedgerUnavailableError

PACE = "stripe"
"""The pace that all calls keep, whatever they are for."""


class PacedHTTPXClient(stripe.HTTPXClient):
    """The SDK's own client, which sends when it is its turn.

    Args:
        database_url: where the turns are taken, over a connection of its own: one from a pool that
            activities share would be waited for.
        per_second: calls that all processes together may make.
        timeout: seconds that one call may take, from its turn on.
    """

    def __init__(self, database_url: str, per_second: float, *, timeout: float):
        super().__init__(timeout=timeout)  # pyright: ignore[reportUnknownMemberType]
        self._turns = Ledger(database_url, pool_size=1)
        self._apart = timedelta(seconds=1 / per_second)
        self._line = asyncio.Lock()

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """Wait for a turn, then send.

        Raises:
            stripe.APIConnectionError: as the SDK does, and when no turn can be taken.
        """
        async with self._line:
            await asyncio.sleep(await self._turn())
        send = super().request_async  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        return await send(method, url, headers, post_data)

    async def close_async(self) -> None:
        """Close the connections to Stripe and to the database."""
        await super().close_async()
        await self._turns.close()

    async def _turn(self) -> float:
        try:
            async with self._turns.each() as tx:
                return await pace.take_turn(tx, PACE, self._apart)
        except LedgerUnavailableError as error:
            raise stripe.APIConnectionError(f"no turn to call Stripe: {error}") from error
