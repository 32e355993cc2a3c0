"""Brings the database to the schema that this code needs, and tells whether it is there.

Safe to run at any time and by several processes at once; a database that is up to date is left
alone.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from tallystick.errors import TallystickError
from tallystick.ledger.database import LedgerUnavailableError, driver_url


def migrate(url: str) -> str:
    """Apply what is missing; returns the revision the database is then at.

    Raises:
        LedgerUnavailableError: when PostgreSQL is away.
        TallystickError: when it has the schema of another version that this one does not know.
    """
    engine = create_engine(driver_url(url), poolclass=NullPool)
    try:
        with _connect(engine) as connection, connection.begin():
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            return _revision(connection) or ""
    except OperationalError as error:
        raise _unavailable(error) from error
    except CommandError as error:
        raise TallystickError(
            f"the database was set up by another version of Tallystick ({error}); use that version"
        ) from error
    finally:
        engine.dispose()


def is_current(url: str) -> bool:
    """Tell whether the database has this code's schema.

    Raises:
        LedgerUnavailableError: when PostgreSQL is away.
    """
    engine = create_engine(driver_url(url), poolclass=NullPool)
    try:
        with _connect(engine) as connection:
            head = ScriptDirectory.from_config(_config()).get_current_head()
            return _revision(connection) == head
    except OperationalError as error:
        raise _unavailable(error) from error
    finally:
        engine.dispose()


def require_current(url: str) -> None:
    """Refuse to go on with a database that lacks this code's schema.

    Raises:
        LedgerUnavailableError: when PostgreSQL is away.
        TallystickError: in words that name the remedy.
    """
    if not is_current(url):
        raise TallystickError(
            "the database that DATABASE_URL names lacks this version's tables; "
            "run `tallystick setup`"
        )


def _connect(engine: Engine) -> Connection:
    try:
        return engine.connect()
    except DBAPIError as error:  # not only an absent server: also an option nobody knows
        raise _unavailable(error) from error


def _unavailable(error: DBAPIError) -> LedgerUnavailableError:
    return LedgerUnavailableError(str(error.orig).strip().splitlines()[0])


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
