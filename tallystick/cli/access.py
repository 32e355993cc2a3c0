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
    with database(get_settings()) as url:
        require_current(url)
        return asyncio.run(_in_transaction(url, work))


async def _in_transaction(url: str, work: Callable[[Transaction], Awaitable[_T]]) -> _T:
    ledger = Ledger(url, pool_size=1)
    try:
        async with ledger.begin() as tx:
            return await work(tx)
    finally:
        await ledger.close()
