"""`tallystick prices` and `tallystick rate`: the price book, and anyone's replies rated by it."""

import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer

from tallystick.cli.instants import read_instant
from tallystick.cli.output import JsonFlag, err, fail, note, print_json, print_rows
from tallystick.pricing import TOKEN_KINDS, NoPriceError, PriceRow, price_book, rate_text
from tallystick.pricing.check import compare

_prices = typer.Typer(help="The price book.", no_args_is_help=True)
_PROGRESS_FROM = 10_000


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.add_typer(_prices, name="prices")
    app.command()(rate)


@_prices.command()
def show(
    model: Annotated[str, typer.Argument(help="A model id; all models when not given.")] = "",
    at: Annotated[str, typer.Option(help="An instant or a date; now by default.")] = "",
    as_json: bool = JsonFlag,
) -> None:
    """Show prices in US dollars per million tokens; --json has the source of each."""
    book, instant = price_book(), read_instant(at, "--at")
    try:
        rows = book.prices(model, instant) if model else _all_prices(book.rows, instant)
    except NoPriceError as error:
        fail(f"MODEL: {error}")
    if as_json:
        print_json(
            {"price_book": book.version, "at": instant, "prices": [asdict(row) for row in rows]}
        )
        return
    kinds = [kind.value for kind in TOKEN_KINDS]
    print_rows(
        ("model", "prompt over", *(kind.replace("_", " ") for kind in kinds)),
        [
            (name, over or "-", *(prices[kind] for kind in kinds))
            for (name, over), prices in _by_tier(rows).items()
        ],
        title=f"Price book {book.version}: US dollars per million tokens, {instant:%Y-%m-%d}",
    )
    if not rows:
        note("no model of the book had a price then")
    for source in sorted({row.source for row in rows}):
        note(f"source: {source}")


def _all_prices(rows: Iterable[PriceRow], at: datetime) -> list[PriceRow]:
    return sorted((row for row in rows if row.in_force(at)), key=lambda row: row.model)


def _by_tier(rows: Sequence[PriceRow]) -> dict[tuple[str, int], dict[str, Decimal]]:
    tiers: dict[tuple[str, int], dict[str, Decimal]] = {}
    for row in rows:
        tiers.setdefault((row.model, row.prompt_over), {})[row.kind.value] = row.usd_per_million
    return tiers


@_prices.command()
def check(
    at: Annotated[str, typer.Option(help="An instant or a date; now by default.")] = "",
    as_json: bool = JsonFlag,
) -> None:
    """Compare the book with genai-prices; exits 1 on a difference nobody has explained."""
    try:
        rows = compare(read_instant(at, "--at"))
    except ModuleNotFoundError as error:
        fail(str(error))
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        print_rows(
            ("model", "kind", "mode", "prompt over", "ours", "theirs", "why"),
            [
                (
                    row.model,
                    row.kind.value,
                    row.mode,
                    row.prompt_over,
                    row.ours,
                    row.theirs,
                    row.reason or "NOT EXPLAINED",
                )
                for row in rows
            ],
        )
    unexplained = sum(row.reason is None for row in rows)
    note(f"{len(rows)} differences, {unexplained} of them not explained")
    if unexplained:
        raise typer.Exit(1)


def rate(
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON lines, or - for stdin.")],
) -> None:
    """Rate replies from outside, one JSON object a line, by the code that rates our own."""
    try:
        with nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb") as lines:
            _rate_lines(lines)
    except OSError as error:
        if error.filename != file:
            raise
        fail(f"FILE: {file}: {error.strerror}")


def _rate_lines(lines: Iterable[bytes]) -> None:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            print_json(rate_text(line))
        if number % _PROGRESS_FROM == 0 and err.is_terminal:
            note(f"{number:,} lines")
