"""Brings the database to the schema that this code needs, and tells whether it is there.

Safe to run at any time and by several processes at once; a database that is up to date is left
alone.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from tallystick.ledger.database import LedgerUnavailableError, driver_url


def migrate(url: str) -> str:
    """Apply what is missing; returns the revision the database is then at.

    Raises:
        LedgerUnavailableError: when PostgreSQL is away.
    """
    engine = create_engine(driver_url(url), poolclass=NullPool)
    try:
        with engine.begin() as connection:
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            return _revision(connection) or ""
    except OperationalError as error:
        raise LedgerUnavailableError(str(error.orig).strip().splitlines()[0]) from error
    finally:
        engine.dispose()


def is_current(url: str) -> bool:
    """Tell whether the database has this code's schema.

    Raises:
        LedgerUnavailableError: when PostgreSQL is away.
    """
    engine = create_engine(driver_url(url), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            head = ScriptDirectory.from_config(_config()).get_current_head()
            return _revision(connection) == head
    except OperationalError as error:
        raise LedgerUnavailableError(str(error.orig).strip().splitlines()[0]) from error
    finally:
        engine.dispose()


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
