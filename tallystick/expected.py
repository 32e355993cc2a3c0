"""Errors that a person can act on, in one line each. Anything else is a bug: it keeps its trace.

The line names the setting or field and the remedy. It never quotes an address or a key, which may
hold a password.
"""

from tallystick.errors import TallystickError
from tallystick.settings import SettingsError


def in_one_line(error: BaseException) -> str | None:
    """Say what is wrong and what to do; None when nobody expected it."""
    from tallystick.embedded import EmbeddedError
    from tallystick.ledger.database import LedgerUnavailableError

    if isinstance(error, LedgerUnavailableError):
        return f"PostgreSQL does not answer: {error}; DATABASE_URL says where it is"
    if isinstance(error, TallystickError | SettingsError | EmbeddedError):
        return str(error)
    return None
