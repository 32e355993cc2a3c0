"""`tallystick event`: `stuck retry` and `stuck skip` for parked events from Stripe."""

from typing import Annotated

import typer

from tallystick.cli.stuck_actions import event_decision, retry_event, skip_event

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
    retry_event(event_decision("retry", event, ""))


@_events.command()
def skip(
    event: Event,
    reason: Annotated[str, typer.Argument(help="Why; kept with the event.")],
) -> None:
    """Be done with a parked event without applying it."""
    skip_event(event_decision("skip", event, reason))
