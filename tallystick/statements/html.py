"""A statement as one HTML page: no script, nothing loaded from anywhere, prints as it looks.

Everything that is written into it is escaped; a customer's name is somebody else's text. It reads
on a telephone: text gives way and wraps, amounts never break, and a table that is still too wide
scrolls by itself instead of the page.
"""

from collections.abc import Iterator, Sequence
from html import escape

from tallystick.statements.grid import Grid, written
from tallystick.statements.sheet import Sheet

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.45 system-ui, sans-serif; color: #1c1c1c; background: #fff; max-width: 54rem;
       margin: 2.5rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .8rem; }
h2 { font-size: 1rem; margin: 2rem 0 .4rem; break-after: avoid; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem;
     margin: 0 0 1.2rem; }
dt { color: #666; } dd { margin: 0; }
ul { padding-left: 1.1rem; margin: 0; }
div { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; }
tr { break-inside: avoid; }
th, td { text-align: left; padding: .28rem 0 .28rem 1rem; vertical-align: top; }
th:first-child, td:first-child { padding-left: 0; }
th { color: #666; font-weight: 500; border-bottom: 1px solid #999; vertical-align: bottom; }
td { border-bottom: 1px solid #e6e6e6; }
tfoot td { border: 0; border-top: 1px solid #999; font-weight: 600; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
@media (max-width: 34rem) {
  body { margin: 1.2rem auto; }
  table { font-size: .8rem; }
  th, td { padding-left: .5rem; }
}
@media print { body { margin: 0; max-width: none; } }
"""


def as_html(sheet: Sheet) -> str:
    """Write the sheet as a page of its own."""
    return "\n".join(_page(sheet)) + "\n"


def _page(sheet: Sheet) -> Iterator[str]:
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(sheet.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>"
    yield f"<h1>{escape(sheet.title)}</h1>\n<dl>"
    for name, value in sheet.heading:
        yield f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
    yield "</dl>\n<ul>"
    yield from (f"<li>{escape(sentence)}</li>" for sentence in sheet.sentences)
    yield "</ul>"
    for grid in sheet.grids:
        yield from _table(grid)
    yield "</body>\n</html>"


def _table(grid: Grid) -> Iterator[str]:
    marks = [' class="n"' if grid.is_number(index) else "" for index in range(len(grid.columns))]

    def row(cells: Sequence[str], tag: str) -> str:
        inner = zip(marks, cells, strict=True)
        return "".join(f"<{tag}{mark}>{escape(cell)}</{tag}>" for mark, cell in inner)

    body = written(grid)
    yield f"<h2>{escape(grid.title)}</h2>\n<div><table>"
    yield f"<thead><tr>{row(grid.columns, 'th')}</tr></thead>\n<tbody>"
    yield from (f"<tr>{row(cells, 'td')}</tr>" for cells in body[: len(grid.rows)])
    yield "</tbody>"
    if grid.foot:
        yield f"<tfoot><tr>{row(body[-1], 'td')}</tr></tfoot>"
    yield "</table></div>"
