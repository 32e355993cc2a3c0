"""A statement as CSV: one row a line of any table, exact amounts, for a spreadsheet or a script.

A cell that a spreadsheet would take for a formula is set in quotes of its own: names and
descriptions are other people's text.
"""

import csv
import io
from decimal import Decimal

from tallystick.money import plain
from tallystick.statements.sheet import Cell, Sheet

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_csv(sheet: Sheet) -> str:
    """Write every table of the sheet, each line with the table's name before it."""
    text = io.StringIO()
    writer = csv.writer(text)
    for grid in sheet.grids:
        writer.writerow(["table", *grid.columns])
        for row in [*grid.rows, *([grid.foot] if grid.foot else [])]:
            writer.writerow([grid.title, *(_cell(cell) for cell in row)])
    return text.getvalue()


def _cell(cell: Cell) -> str:
    if isinstance(cell, Decimal):
        return plain(cell)
    if isinstance(cell, int):
        return str(cell)
    text = cell.replace(",", "") if cell.replace(",", "").replace(".", "").isdigit() else cell
    return f"'{text}" if text.startswith(_FORMULA) and not _is_amount(text) else text


def _is_amount(text: str) -> bool:
    return text.removeprefix("-").replace(",", "").replace(".", "", 1).isdigit()
