"""`tallystick prices` and `tallystick rate`: the price book, and anyone's replies rated by it."""

import sys
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from tallystick.cli.output import JsonFlag, err, fail, note, print_json, print_rows
from tallystick.pricing import NoPriceError, price_book, rate_text
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
    """Show prices in US dollars per million tokens, each with its source."""
    book, instant = price_book(), _instant(at)
    models = [model] if model else sorted({known.id for known in book.models.values()})
    try:
        rows = [row for name in models for row in book.prices(name, instant)]
    except NoPriceError as error:
        fail(f"MODEL: {error}")
    if as_json:
        print_json(
            {"price_book": book.version, "at": instant, "prices": [asdict(row) for row in rows]}
        )
        return
    print_rows(
        ("model", "kind", "$ per million", "prompt over", "from", "until", "source"),
        [
            (
                row.model,
                row.kind.value,
                row.usd_per_million,
                row.prompt_over,
                row.valid_from.date(),
                row.valid_until.date() if row.valid_until else None,
                row.source,
            )
            for row in rows
        ],
        title=f"Price book {book.version}, prices of {instant:%Y-%m-%d %H:%M} UTC",
    )


@_prices.command()
def check(
    at: Annotated[str, typer.Option(help="An instant or a date; now by default.")] = "",
    as_json: bool = JsonFlag,
) -> None:
    """Compare the book with genai-prices; exits 1 on a difference nobody has explained."""
    try:
        rows = compare(_instant(at))
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
    if file != "-" and not Path(file).is_file():
        fail(f"FILE: {file!r} is no file")
    with nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb") as lines:
        _rate_lines(lines)


def _rate_lines(lines: Iterable[bytes]) -> None:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            print_json(rate_text(line))
        if number % _PROGRESS_FROM == 0 and err.is_terminal:
            note(f"{number:,} lines")


def _instant(text: str) -> datetime:
    if not text:
        return datetime.now(UTC)
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        fail(f"--at: {text!r} is neither a date nor an instant, such as 2026-10-07")
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
