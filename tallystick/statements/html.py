"""A statement as one HTML page (`tallystick.html_pages`)."""

from collections.abc import Iterator

from tallystick.html_pages import heading, page, table
from tallystick.statements.sheet import Sheet


def as_html(sheet: Sheet) -> str:
    """Write the sheet as a page of its own."""
    return page(sheet.title, _body(sheet))


def _body(sheet: Sheet) -> Iterator[str]:
    yield from heading(sheet.heading, sheet.sentences)
    for grid in sheet.grids:
        yield from table(grid)
