"""A ledger transaction inside an activity: an absent PostgreSQL becomes a row of the error table.

Kept in one place so that no step can forget it: the raw error would count as a programming error,
and a step that may simply be repeated would be parked.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from activities.failures import failure
from tallystick.errors import LEDGER_UNAVAILABLE
from tallystick.ledger.database import Ledger, LedgerUnavailableError, Transaction


@asynccontextmanager
async def transaction(ledger: Ledger) -> AsyncGenerator[Transaction, None]:
    """Open a transaction of `ledger`, committed at the end of the block.

    Raises:
        ApplicationError: `LedgerUnavailable`, to be tried again.
    """
    try:
        async with ledger.begin() as tx:
            yield tx
    except LedgerUnavailableError as error:
        raise failure(LEDGER_UNAVAILABLE, f"the ledger is away: {error}") from error
