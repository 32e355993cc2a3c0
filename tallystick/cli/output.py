"""What commands print, and how they fail: a table for people, JSON for programs, one line of error.

Results go to standard output and everything said beside them to standard error, so that
`--json` can be piped. An error names the field or setting and the remedy; a traceback would name
neither.
"""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from typing import Any, NoReturn

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tallystick.money import plain, usd

out = Console()
err = Console(stderr=True)

JsonFlag = typer.Option(False, "--json", help="Print JSON instead of a table.")


def fail(message: str, code: int = 1) -> NoReturn:
    """Say what is wrong in one line and exit."""
    say_error(message)
    raise typer.Exit(code)


def say_error(message: str) -> None:
    """Say what is wrong in one line."""
    err.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)


def parse_usd(text: str, option: str) -> Decimal:
    """Read an amount of US dollars that `option` was given, or say that it is none."""
    with suppress(ValueError):
        amount = usd(text)
        if amount >= 0:
            return amount
    fail(f"{option}: {text!r} is not an amount in dollars")


def note(message: str) -> None:
    """Say something beside the result."""
    err.print(escape(message), highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print one JSON value on one line; money as decimal strings, instants in RFC 3339."""
    try:
        typer.echo(json.dumps(value, default=_as_json, ensure_ascii=False))
    except BrokenPipeError:
        # `head` has seen enough. Told here, so that no caller takes it for a lost connection.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str = "") -> None:
    """Print a table; numbers are set to the right, and only prose is wrapped.

    An amount or an id that is broken in two can be misread, so where the terminal is too narrow
    for the longest words, lines run over its edge instead.
    """
    rows = [list(row) for row in rows]
    table = Table(title=title or None, title_justify="left", header_style="bold", box=None)
    shown = [[_cell(value) for value in row] for row in rows]
    widths = _widths([columns, *shown], out.width)
    for index, (column, width) in enumerate(zip(columns, widths, strict=True)):
        known = [row[index] for row in rows if row[index] is not None]
        number = known and all(isinstance(value, int | Decimal) for value in known)
        table.add_column(column, justify="right" if number else "left", width=width)
    for row in shown:
        table.add_row(*(escape(cell) for cell in row))
    Console(width=max(out.width, _with_gaps(widths))).print(table)


def _widths(rows: Sequence[Sequence[str]], room: int) -> list[int]:
    """Return what each column is given: all it wants, or the widest give way down to a word."""
    columns = list(zip(*rows, strict=True))
    widths = [max(map(cell_len, cells)) for cells in columns]
    words = [
        max(cell_len(word) for cell in cells for word in [*cell.split(), ""]) for cells in columns
    ]
    while _with_gaps(widths) > room:
        spare = [index for index, width in enumerate(widths) if width > words[index]]
        if not spare:
            break
        widths[max(spare, key=lambda index: widths[index])] -= 1
    return widths


def _with_gaps(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * len(widths)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S %Z}".replace(" UTC", "Z")
    return str(value)


def _as_json(value: Any) -> Any:
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return str(value)
