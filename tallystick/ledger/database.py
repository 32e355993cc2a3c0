"""The connection to PostgreSQL and the transaction every ledger function runs in.

A function of this package takes a `Transaction` and never commits: what must be atomic is decided
where the transaction is opened, and read there in one piece. The pool tests a connection before
it hands it out, so a restarted PostgreSQL costs a retry and not a broken worker.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from sqlalchemy import Row
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlmodel import SQLModel

Transaction = AsyncConnection
"""What ledger functions run in."""

UNAVAILABLE = (OperationalError, InterfaceError, PoolTimeoutError, OSError)
"""What a lost, restarting or exhausted PostgreSQL raises: worth trying again."""


class LedgerUnavailableError(Exception):
    """PostgreSQL could not be reached or went away; nothing of the transaction is committed.

    Also raised when the commit's own answer was lost. Every write of the ledger can therefore be
    repeated without effect.
    """


def driver_url(url: str) -> str:
    """Name the psycopg driver in a plain PostgreSQL address."""
    for prefix in ("postgres://", "postgresql://"):
        if url.startswith(prefix):
            return "postgresql+psycopg://" + url.removeprefix(prefix)
    return url


_Table = TypeVar("_Table", bound=SQLModel)


def entity(table: type[_Table], row: Row[Any]) -> _Table:
    """Return a row selected with all columns of `table` as its model."""
    return table(**row._mapping)  # pyright: ignore[reportPrivateUsage]


class Ledger:
    """The pool of one process. Open it once, close it at the end."""

    def __init__(self, url: str, *, pool_size: int = 16):
        """Prepare the pool without connecting.

        Args:
            url: a PostgreSQL address, with or without a driver in its scheme.
            pool_size: connections kept at the most.
        """
        self.url = url
        self._engine = create_async_engine(
            driver_url(url),
            pool_size=pool_size,
            max_overflow=0,
            pool_pre_ping=True,
            connect_args={"connect_timeout": 10, "application_name": "tallystick"},
        )

    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[Transaction, None]:
        """Open a transaction: committed at the end of the block, rolled back if it raises.

        Raises:
            LedgerUnavailableError: when PostgreSQL is away.
        """
        try:
            async with self._engine.begin() as connection:
                yield connection
        except UNAVAILABLE as error:
            raise LedgerUnavailableError(_first_line(error)) from error
        except DBAPIError as error:
            if error.connection_invalidated:
                raise LedgerUnavailableError(_first_line(error)) from error
            raise

    async def close(self) -> None:
        """Give all connections back."""
        await self._engine.dispose()


def _first_line(error: BaseException) -> str:
    # The driver's message alone: SQLAlchemy's own text would repeat statement and parameters.
    cause = getattr(error, "orig", None) or error
    return str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
