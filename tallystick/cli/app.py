"""The command `tallystick`: the root of all commands, and what becomes of what they raise."""

import asyncio
from typing import Annotated

import typer

from tallystick.cli.contents import Commands, enter_all
from tallystick.cli.output import say_error
from tallystick.exiting import end_process
from tallystick.expected import in_one_line

app = typer.Typer(
    name="tallystick",
    help="Bill your customers for Claude: served, charged and metered always tally.",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
enter_all(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("tallystick"))
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Take what stands before the command."""


def main() -> None:
    """Run the command line; every expected error ends in one line and exit code 1."""
    code = 0
    try:
        app()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except (KeyboardInterrupt, asyncio.CancelledError):
        code = 130
    except Exception as error:
        line = in_one_line(error)
        if line is None:
            raise
        say_error(line)
        code = 1
    end_process(code)
