"""A statement for a terminal or a mail: columns set with spaces, no wider than its longest line."""

from collections.abc import Iterator
from decimal import Decimal

from tallystick.money import plain
from tallystick.statements.sheet import Cell, Grid, Sheet

_GAP = "  "


def as_text(sheet: Sheet) -> str:
    """Write the sheet as plain text."""
    return "\n".join(_lines(sheet)) + "\n"


def written(cell: Cell) -> str:
    """Write one cell: amounts exactly, counts with separators."""
    if isinstance(cell, Decimal):
        return plain(cell)
    return f"{cell:,}" if isinstance(cell, int) else cell


def _lines(sheet: Sheet) -> Iterator[str]:
    yield sheet.title
    yield "=" * len(sheet.title)
    name = max(len(name) for name, _ in sheet.heading)
    for key, value in sheet.heading:
        yield f"{key:<{name}}{_GAP}{value}"
    yield ""
    yield from sheet.sentences
    for grid in sheet.grids:
        yield ""
        yield grid.title
        yield from _table(grid)


def _table(grid: Grid) -> Iterator[str]:
    rows = [[written(cell) for cell in row] for row in grid.rows]
    foot = [written(cell) for cell in grid.foot] if grid.foot else None
    every = [list(grid.columns), *rows, *([foot] if foot else [])]
    widths = [max(len(row[index]) for row in every) for index in range(len(grid.columns))]
    right = [is_number(grid, index) for index in range(len(grid.columns))]

    def line(row: list[str]) -> str:
        cells = zip(row, widths, right, strict=True)
        return _GAP.join(f"{c:>{w}}" if r else f"{c:<{w}}" for c, w, r in cells).rstrip()

    yield line(list(grid.columns))
    yield _GAP.join("-" * width for width in widths)
    for row in rows:
        yield line(row)
    if foot:
        yield _GAP.join("-" * width for width in widths)
        yield line(foot)


def is_number(grid: Grid, index: int) -> bool:
    """Tell whether a column stands to the right: its heading is money, or its cells are counts."""
    if grid.columns[index].endswith("$"):
        return True
    cells = [row[index] for row in grid.rows if row[index] != ""]
    return bool(cells) and all(isinstance(cell, int | Decimal) for cell in cells)
