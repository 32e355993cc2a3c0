"""The connection to PostgreSQL and the transaction every ledger function runs in.

A function of this package takes a `Transaction` and never commits: what must be atomic is decided
where the transaction is opened, and read there in one piece. When PostgreSQL has been restarted,
the first transaction on a dead connection fails as unavailable and empties the pool; whoever
retries gets a new one. Testing each connection before use would cost every request four round
trips to spare it that.
"""

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from sqlalchemy import Row, text
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


def entity(table: type[_Table], row: Row[*tuple[Any, ...]]) -> _Table:
    """Return the columns of `table` in a row as its model; the row must have all of them."""
    columns = row._mapping  # pyright: ignore[reportPrivateUsage]
    return table(**{name: columns[name] for name in table.model_fields})


async def snapshot(tx: Transaction) -> None:
    """Let all that a transaction reads be of one moment; to be called first, it then only reads."""
    await tx.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


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
            hide_parameters=True,  # of statements in errors: a reply may be one of them
            connect_args={"connect_timeout": 10, "application_name": "tallystick"},
        )
        self._each = self._engine.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def each(self) -> AsyncGenerator[Transaction, None]:
        """Open a connection on which each statement is a transaction of its own.

        For reads that need not agree to the instant, and for single writes: it saves two round
        trips, and the write is committed when its statement returns.

        Raises:
            LedgerUnavailableError: when PostgreSQL is away.
        """
        with _named_trouble():
            async with self._each.connect() as connection:
                yield connection

    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[Transaction, None]:
        """Open a transaction: committed at the end of the block, rolled back if it raises.

        Raises:
            LedgerUnavailableError: when PostgreSQL is away.
        """
        with _named_trouble():
            async with self._engine.begin() as connection:
                yield connection

    async def close(self) -> None:
        """Give all connections back."""
        await self._engine.dispose()


@contextmanager
def _named_trouble() -> Generator[None, None, None]:
    try:
        yield
    except UNAVAILABLE as error:
        raise LedgerUnavailableError(_first_line(error)) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise LedgerUnavailableError(_first_line(error)) from error
        raise


def _first_line(error: BaseException) -> str:
    # The driver's message alone: SQLAlchemy's own text would repeat statement and parameters.
    cause = getattr(error, "orig", None) or error
    return str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
