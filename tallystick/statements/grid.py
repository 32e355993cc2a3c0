"""Tables of a statement, and how a cell of them is written wherever a person reads it.

Amounts of a column are written with as many decimals as the most exact of them has, and cents at
least: points stand under each other where numbers stand to the right, and nothing is rounded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import compress

from tallystick.money import plain

Cell = str | int | Decimal
"""Text, a count, or an amount; an empty text where there is nothing to say."""

_CENTS = 2


@dataclass(frozen=True, slots=True)
class Grid:
    """A table with a heading of its own, `foot` under a line. Each row has a cell a column."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    foot: tuple[Cell, ...] = ()

    @property
    def lines(self) -> tuple[tuple[Cell, ...], ...]:
        """The rows, and the foot as the last one."""
        return (*self.rows, self.foot) if self.foot else self.rows

    def column(self, index: int) -> list[Cell]:
        """Return the cells of a column, the foot's last."""
        return [line[index] for line in self.lines]

    def is_number(self, index: int) -> bool:
        """Tell whether a column holds numbers, which stand to the right."""
        return any(not isinstance(cell, str) for cell in self.column(index))


def without_empty_columns(grid: Grid) -> Grid:
    """Leave out what has nothing in it."""
    full = [any(cell != "" for cell in grid.column(index)) for index in range(len(grid.columns))]
    return Grid(
        grid.title,
        tuple(compress(grid.columns, full)),
        tuple(tuple(compress(row, full)) for row in grid.rows),
        tuple(compress(grid.foot, full)),
    )


def written(grid: Grid, *, separator: str = ",") -> list[list[str]]:
    """Write every row, the foot last; `separator` stands between thousands."""
    places = [_places(grid.column(index)) for index in range(len(grid.columns))]
    return [
        [_written(cell, most, separator) for cell, most in zip(line, places, strict=True)]
        for line in grid.lines
    ]


def exact(amount: Decimal) -> str:
    """Write one amount by itself."""
    return _written(amount, _places([amount]), ",")


def _places(cells: Sequence[Cell]) -> int:
    amounts = [plain(cell) for cell in cells if isinstance(cell, Decimal)]
    return max([_CENTS, *(len(amount.partition(".")[2]) for amount in amounts)])


def _written(cell: Cell, places: int, separator: str) -> str:
    match cell:
        case str():
            return cell
        case int():
            return f"{cell:{separator}}"
        case Decimal():
            return f"{cell or Decimal(0):{separator}.{places}f}"  # zero has no sign
