"""HTML pages of their own: no script, nothing loaded from anywhere, they print as they look.

Everything that is written into one is escaped, and its own policy lets it load nothing and run
nothing: a customer's name is somebody else's text. On a telephone, tables of more than two columns
are drawn as one short list a row, each cell with its column's name before it, so that nothing has
to be scrolled for sideways and no amount is broken.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from tallystick.statements.grid import Grid, written

_NARROW = 2
"""Columns of a table that stays one on a telephone."""
_DATE = re.compile(r"\b\d{4}-\d\d-\d\d\b")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light; --ink: #1c1c1c; --paper: #fff; --faint: #666; --rule: #999;
        --hair: #e6e6e6; --fold: #ccc; --foot: #777; }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 54rem; margin: 2.5rem auto; padding: 0 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .8rem; }
h2 { font-size: 1rem; margin: 2rem 0 .4rem; break-after: avoid; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .15rem 1.2rem;
     margin: 0 0 1.2rem; }
dt { color: var(--faint); } dd { margin: 0; }
ul { padding-left: 1.1rem; margin: 0; }
time { white-space: nowrap; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; }
tr { break-inside: avoid; }
th, td { text-align: left; padding: .28rem 0 .28rem 1rem; vertical-align: top; }
th:first-child, td:first-child { padding-left: 0; }
th { color: var(--faint); font-weight: 500; border-bottom: 1px solid var(--rule);
     vertical-align: bottom; }
td { border-bottom: 1px solid var(--hair); }
td:not(.n) { overflow-wrap: anywhere; min-width: 4.5rem; }
tfoot { display: table-row-group; }  /* or it would stand on every printed page */
tfoot td { border: 0; border-top: 1px solid var(--rule); font-weight: 600; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
@media (max-width: 40rem) {
  body { margin: 1.2rem auto; }
  .wide thead { display: none; }
  .wide, .wide tbody, .wide tfoot, .wide tr { display: block; }
  .wide tr { border-top: 1px solid var(--fold); padding: .3rem 0; }
  .wide tfoot tr { border-color: var(--foot); }
  .wide td { display: block; text-align: right; border: 0; padding: .05rem 0; }
  .wide td::before { content: attr(data-column); float: left; margin-right: 1rem;
                     color: var(--faint); font-weight: 400; }
  .wide td:first-child:not(.n) { text-align: left; }
  .wide td:first-child:not(.n)::before, .wide td:empty { display: none; }
}
@media print { body { margin: 0; max-width: none; } }
"""


def page(title: str, body: Iterable[str], *, style: str = "") -> str:
    """Write a page around `body`, which is HTML; `style` is added to what every page has."""
    return "\n".join([*_head(title, style), *body, "</body>\n</html>"]) + "\n"


def heading(pairs: Iterable[tuple[str, str]], sentences: Iterable[str]) -> Iterator[str]:
    """Write what stands on top: names and values, and what they come to in sentences."""
    yield "<dl>"
    for name, value in pairs:
        yield f"<dt>{escape(name)}</dt><dd>{text(value)}</dd>"
    yield "</dl>\n<ul>"
    yield from (f"<li>{text(sentence)}</li>" for sentence in sentences)
    yield "</ul>"


def table(grid: Grid) -> Iterator[str]:
    """Write a table under its title."""
    marks = [' class="n"' if grid.is_number(index) else "" for index in range(len(grid.columns))]
    names = [f' data-column="{escape(name)}"' for name in grid.columns]

    def row(cells: Sequence[str]) -> str:
        inner = zip(marks, names, cells, strict=True)
        cells = [f"<td{mark}{name}>{text(cell)}</td>" for mark, name, cell in inner]
        return f"<tr>{''.join(cells)}</tr>"

    heads = zip(marks, grid.columns, strict=True)
    body = written(grid)
    yield f"<h2>{escape(grid.title)}</h2>"
    yield '<table class="wide">' if len(grid.columns) > _NARROW else "<table>"
    yield f"<thead><tr>{''.join(f'<th{mark}>{escape(name)}</th>' for mark, name in heads)}</tr>"
    yield "</thead>\n<tbody>"
    yield from map(row, body[: len(grid.rows)])
    yield "</tbody>"
    if grid.foot:
        yield f"<tfoot>{row(body[-1])}</tfoot>"
    yield "</table>"


def text(words: str) -> str:
    """Escape text; dates in it are never broken."""
    return _DATE.sub(r"<time>\g<0></time>", escape(words))


def _head(title: str, style: str) -> Iterator[str]:
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n<body>"
    yield f"<h1>{escape(title)}</h1>"
