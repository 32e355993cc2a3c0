"""`tallystick event`: what an operator does about an event from Stripe that is parked."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from tallystick.cli.access import in_ledger
from tallystick.cli.output import fail, note
from tallystick.ledger import inbox

_events = typer.Typer(
    help="Retry or skip events from Stripe that are parked.", no_args_is_help=True
)

Event = Annotated[str, typer.Argument(help="Its id; `tallystick stuck` shows it.")]


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.add_typer(_events, name="event")


@_events.command()
def retry(event: Event) -> None:
    """Have a parked event looked at again, once its cause has been mended."""
    if not in_ledger(lambda tx: inbox.retry_parked(tx, event)):
        fail(f"EVENT: no event {event!r} is parked that could be read")
    note("it is looked at within a minute")


@_events.command()
def skip(
    event: Event,
    reason: Annotated[str, typer.Argument(help="Why; kept with the event.")],
) -> None:
    """Be done with a parked event without applying it."""
    now = datetime.now(UTC)
    if not in_ledger(lambda tx: inbox.skip_parked(tx, event, reason, now)):
        fail(f"EVENT: no event {event!r} is parked")
    note("skipped, with its reason")
