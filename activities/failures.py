"""From a row of the error table to a Temporal failure.

An activity never decides by itself whether to try again: it names the row, and the row's action
decides (`tallystick.errors`). Messages hold no prompt, no reply and no key.
"""

from datetime import timedelta
from typing import Any

from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from tallystick.errors import Action, Failure

MESSAGE_LIMIT = 1_000
"""Characters of a provider's message that are kept; Temporal stores 4 KiB of a failure."""


def failure(
    row: Failure, message: str, *, retry_after: float | None = None, **details: Any
) -> ApplicationError:
    """Return the error that an activity raises for a row of the table.

    Args:
        row: what happened.
        message: for a person, without secrets.
        retry_after: seconds that the other side asked us to wait.
        details: facts for programs, JSON-ready.
    """
    return ApplicationError(
        message[:MESSAGE_LIMIT],
        details,
        type=row.type,
        non_retryable=row.action is not Action.RETRY,
        next_retry_delay=timedelta(seconds=retry_after) if retry_after is not None else None,
        # What passes by itself, or is the caller's own affair, is logged quietly and not counted.
        category=(
            ApplicationErrorCategory.UNSPECIFIED if row.alarm else ApplicationErrorCategory.BENIGN
        ),
    )
