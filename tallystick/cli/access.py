"""How commands reach the ledger: one transaction a call, in a database that is set up."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tallystick.ledger.database import Ledger, Transaction
from tallystick.ledger.migrate import require_current
from tallystick.services import database
from tallystick.settings import get_settings

_T = TypeVar("_T")


def in_ledger(work: Callable[[Transaction], Awaitable[_T]]) -> _T:
    """Run `work` in one transaction of the configured ledger."""

    async def in_transaction(ledger: Ledger) -> _T:
        async with ledger.begin() as tx:
            return await work(tx)

    return with_ledger(in_transaction)


def with_ledger(work: Callable[[Ledger], Awaitable[_T]]) -> _T:
    """Run `work` on the configured ledger, for what opens its transactions itself."""
    with database(get_settings()) as url:
        require_current(url)
        return asyncio.run(_with(url, work))


async def _with(url: str, work: Callable[[Ledger], Awaitable[_T]]) -> _T:
    ledger = Ledger(url, pool_size=1)
    try:
        return await work(ledger)
    finally:
        await ledger.close()
