"""Who does what a command enters in the operators' journal."""

import getpass
from typing import Annotated

import typer

By = Annotated[str, typer.Option("--by", help="Who does it; the user of this terminal if unset.")]


def operator(by: str) -> str:
    """Return who was named, or else the user of this terminal."""
    try:
        return by or getpass.getuser()
    except (KeyError, OSError):
        return "unknown"  # a container may run under a number that has no name
