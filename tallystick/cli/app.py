"""The command `tallystick`: puts the groups of commands together and catches what they raise."""

import asyncio
from typing import Annotated

import typer

from tallystick.cli import customers, ledger, prices, requests, rerate, running, stripe
from tallystick.cli.output import err
from tallystick.embedded import EmbeddedError
from tallystick.errors import TallystickError
from tallystick.exiting import end_process
from tallystick.ledger.database import LedgerUnavailableError
from tallystick.settings import SettingsError

app = typer.Typer(
    name="tallystick",
    help="Bill your customers for Claude: served, charged and metered always tally.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
running.register(app)
requests.register(app)
ledger.register(app)
prices.register(app)
rerate.register(app)
app.add_typer(customers.app, name="customer")
app.add_typer(stripe.app, name="stripe")


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(installed("tallystick"))
        raise typer.Exit


def main() -> None:
    """Run the command line; every expected error ends in one line and exit code 1."""
    code = 0
    try:
        app()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except LedgerUnavailableError as error:
        code = _say(f"PostgreSQL does not answer: {error}; DATABASE_URL says where it is")
    except (TallystickError, SettingsError, EmbeddedError) as error:
        code = _say(str(error))
    except (KeyboardInterrupt, asyncio.CancelledError):
        code = 130
    end_process(code)


def _say(message: str) -> int:
    err.print("[bold red]error:[/] " + message.replace("[", r"\["), highlight=False, soft_wrap=True)
    return 1
