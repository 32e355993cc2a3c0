"""A statement as CSV: every line of every table under one header, for a spreadsheet or a script.

A column stands for the same in every table and is empty where a table has none of it; the heading
of the statement stands before each line. A table's `total` row comes last. Text that a spreadsheet
would take for a formula has a quote set before it: names are other people's.
"""

import csv
import io
from collections.abc import Iterator

from tallystick.statements.grid import Grid, written
from tallystick.statements.sheet import Sheet

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def as_csv(sheet: Sheet) -> str:
    """Write every table of the sheet; amounts without separators, exactly."""
    heading = {name: _safe(value) for name, value in (("statement", sheet.title), *sheet.heading)}
    text = io.StringIO()
    writer = csv.DictWriter(text, [*heading, "table", "row", *_columns(sheet)])
    writer.writeheader()
    for grid in sheet.grids:
        writer.writerows(heading | row for row in _rows(grid))
    return text.getvalue()


def _columns(sheet: Sheet) -> list[str]:
    """Return the columns of all tables as they come up first, text before numbers."""
    numbers = {
        name: grid.is_number(index)
        for grid in sheet.grids
        for index, name in enumerate(grid.columns)
    }
    return sorted(numbers, key=lambda name: numbers[name])


def _rows(grid: Grid) -> Iterator[dict[str, str]]:
    for number, (line, cells) in enumerate(
        zip(grid.lines, written(grid, separator=""), strict=True)
    ):
        kind = "line" if number < len(grid.rows) else "total"
        safe = (
            _safe(cell) if isinstance(raw, str) else cell
            for raw, cell in zip(line, cells, strict=True)
        )
        yield {"table": grid.title, "row": kind, **dict(zip(grid.columns, safe, strict=True))}


def _safe(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
