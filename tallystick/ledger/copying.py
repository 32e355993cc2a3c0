"""COPY: many rows in one command, inside the transaction that is open.

The driver's own command, since SQLAlchemy has none. What it raises when PostgreSQL goes away is
named here as elsewhere in this package.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast

import psycopg

from tallystick.ledger.database import LedgerUnavailableError, Transaction


@asynccontextmanager
async def copying(tx: Transaction, statement: str) -> AsyncGenerator[psycopg.AsyncCopy, None]:
    """Run `COPY ... FROM STDIN`; the block writes what is copied.

    Raises:
        LedgerUnavailableError: when PostgreSQL is away.
    """
    pooled = await tx.get_raw_connection()
    connection = cast("psycopg.AsyncConnection", pooled.driver_connection)
    try:
        async with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            yield copy
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise LedgerUnavailableError(str(error).strip().splitlines()[0]) from error
