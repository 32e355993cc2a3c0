"""A statement for a terminal or a mail: columns set with spaces, prose and long cells wrapped.

Amounts and ids are never broken, so a table can be wider than the page. What a terminal would take
for a command to itself is left out: names are other people's text.
"""

import textwrap
import unicodedata
from collections.abc import Iterator
from itertools import zip_longest

from rich.cells import cell_len

from tallystick.statements.grid import Grid, written
from tallystick.statements.sheet import Sheet

_PAGE = 80
_CELL = 36
"""Text in a cell is wrapped from here on, which keeps most tables on a page."""
_GAP = "  "


def as_text(sheet: Sheet) -> str:
    """Write the sheet as plain text."""
    return "\n".join(_lines(sheet)) + "\n"


def _lines(sheet: Sheet) -> Iterator[str]:
    title = _harmless(sheet.title)
    yield title
    yield "=" * cell_len(title)
    name = max(len(name) for name, _ in sheet.heading)
    for key, value in sheet.heading:
        yield f"{key:<{name}}{_GAP}{_harmless(value)}"
    yield ""
    for sentence in sheet.sentences:
        yield from _wrapped(sentence, _PAGE)
    for grid in sheet.grids:
        yield ""
        yield grid.title
        yield from drawn(grid)


def drawn(grid: Grid) -> Iterator[str]:
    """Draw the lines of a table, without its title."""
    numbers = [grid.is_number(index) for index in range(len(grid.columns))]
    rows = [[_wrapped(cell, _CELL) for cell in row] for row in [grid.columns, *written(grid)]]
    widths = [
        max(cell_len(line) for cell in column for line in cell)
        for column in zip(*rows, strict=True)
    ]

    def lines_of(row: list[list[str]]) -> Iterator[str]:
        for line in zip_longest(*row, fillvalue=""):
            cells = zip(line, widths, numbers, strict=True)
            yield _GAP.join(_padded(cell, width, right) for cell, width, right in cells).rstrip()

    rule = _GAP.join("-" * width for width in widths)
    head, *body = rows
    yield from lines_of(head)
    yield rule
    for row in body[: len(grid.rows)]:
        yield from lines_of(row)
    if grid.foot:
        yield rule
        yield from lines_of(body[-1])


def _wrapped(text: str, width: int) -> list[str]:
    lines = textwrap.wrap(_harmless(text), width, break_long_words=False, break_on_hyphens=False)
    return lines or [""]


def _padded(cell: str, width: int, right: bool) -> str:
    space = " " * (width - cell_len(cell))
    return space + cell if right else cell + space


def _harmless(text: str) -> str:
    return "".join(" " if unicodedata.category(c) == "Cc" else c for c in text).strip()
