"""Statements read back from what was written, as a spreadsheet, a browser and an eye would."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from html.parser import HTMLParser
from itertools import pairwise

from tallystick.plans.fees import FeeTerms
from tallystick.plans.statement import Statement
from tallystick.statements.html import as_html
from tallystick.statements.sheet import InvoiceSeen, lay_out
from tallystick.statements.spreadsheet import as_csv
from tallystick.statements.text import as_text

FEES = FeeTerms(Decimal("2.9"), Decimal("0.30"))
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_TAGS = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "dl", "dt", "dd", "ul", "li"),
    *("time", "table", "thead", "tbody", "tfoot", "tr", "th", "td"),
}
_ATTRIBUTES = {"lang", "charset", "http-equiv", "name", "content", "class", "data-column"}


@dataclass
class Table:
    """One table of a statement: cells as they were written, those of each row in its order."""

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)

    def amounts(self, column: str) -> list[Decimal]:
        at = self.columns.index(column)
        return [Decimal(row[at].replace(",", "") or 0) for row in self.rows]


@dataclass(frozen=True)
class Papers:
    """A statement in every format that is made from the layout."""

    text: str
    csv: str
    html: str

    def each(self) -> tuple[str, str, str]:
        return self.text, self.csv, self.html


def papers(statement: Statement, invoices: Sequence[InvoiceSeen] = ()) -> Papers:
    sheet = lay_out(statement, invoices, FEES)
    return Papers(as_text(sheet), as_csv(sheet), as_html(sheet))


def numbers(written: str) -> set[Decimal]:
    """Return every number there is in a text, without its sign."""
    return {abs(Decimal(each.replace(",", ""))) for each in _NUMBER.findall(written)}


def reads_right(statement: Statement, invoices: Sequence[InvoiceSeen] = ()) -> dict[str, Table]:
    """Check that all formats say the same and add up to the statement; returns its tables."""
    shown = papers(statement, invoices)
    read = in_html(shown.html)
    assert in_text(shown.text) == read
    assert in_csv(shown.csv) == [_by_name(table) for table in read]
    tables = {table.title: table for table in read}
    for table in read:
        assert _points_stand_below_each_other(table), table
    _adds_up(statement, tables)
    return tables


def _by_name(table: Table) -> Table:
    """Put the columns in the order of their names."""
    order = sorted(range(len(table.columns)), key=lambda at: table.columns[at])
    columns, *rows = [[row[at] for at in order] for row in (table.columns, *table.rows)]
    return Table(table.title, columns, rows)


def _points_stand_below_each_other(table: Table) -> bool:
    money = [index for index, name in enumerate(table.columns) if name.endswith("$")]
    places = [{row[at].partition(".")[2] for row in table.rows if row[at]} for at in money]
    return all(len(set(map(len, each))) == 1 and min(map(len, each)) >= 2 for each in places)


def _adds_up(statement: Statement, tables: dict[str, Table]) -> None:
    for title, table in tables.items():
        if "$" in table.columns and "averaged" not in title and "Savings" not in title:
            *lines, total = table.amounts("$")
            assert sum(lines) == total, title
    due = [line for line in statement.lines if line.collected_by != "wallet"]
    if due:
        collected = tables["What is collected"]
        assert collected.amounts("$")[: len(due)] == [line.amount_usd for line in due]
        *cents, total = collected.amounts("due $")
        assert cents[: len(due)] == [Decimal(line.amount_cents) / 100 for line in due]
        assert sum(cents) == total == Decimal(statement.due_cents) / 100
        assert collected.amounts("$")[-1] == total
    used = [table for title, table in tables.items() if table.columns[:2] == ["model", "kind"]]
    charged = [table.amounts("$")[-1] for table in used]
    assert charged == [section.charge_usd for section in statement.sections.values()]
    assert sum(charged) == statement.usage_usd
    if statement.allowance is not None:
        left = tables["What of the usage is left to pay"].amounts("$")[-1]
        assert left == statement.allowance.overage_usd
    if statement.wallet is not None:
        assert tables["Balance"].amounts("$")[-1] == statement.wallet.closing_usd


# --- CSV ------------------------------------------------------------------------------------------
def in_csv(written: str) -> list[Table]:
    """Read the tables of a CSV; nothing in it may be taken for a formula."""
    rows = list(csv.DictReader(io.StringIO(written), strict=True))
    tables: dict[str, Table] = {}
    for name in dict.fromkeys(row["table"] for row in rows):
        own = [row for row in rows if row["table"] == name]
        columns = list(own[0])[list(own[0]).index("row") + 1 :]
        used = [column for column in columns if any(row[column] for row in own)]
        table = Table(name, used, [[_plain(row[column]) for column in used] for row in own])
        tables[name] = _by_name(table)
    for row in rows:
        for cell in row.values():
            assert not cell.startswith(_FORMULA) or _NUMBER.fullmatch(cell), cell
    return list(tables.values())


def _plain(cell: str) -> str:
    """Take off the quote before what would be a formula."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell


# --- HTML -----------------------------------------------------------------------------------------
class _Page(HTMLParser):
    """A page whose elements are closed in order, and whose tags and attributes are all known."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.style = self.heading = ""
        self.tables: list[Table] = []
        self.names: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _TAGS
        assert {name for name, _ in attrs} <= _ATTRIBUTES
        if tag != "meta":
            self.open.append(tag)
        if tag == "h2":
            self.heading = ""
        elif tag == "table":
            self.tables.append(Table(self.heading, []))
        elif tag == "th":
            self.tables[-1].columns.append("")
        elif tag == "tr" and "thead" not in self.open:
            self.tables[-1].rows.append([])
            self.names = []
        elif tag == "td":
            self.tables[-1].rows[-1].append("")
            self.names.append(dict(attrs)["data-column"])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "tr" and "thead" not in self.open:
            assert self.names == self.tables[-1].columns

    def handle_data(self, data: str) -> None:
        if "td" in self.open:
            self.tables[-1].rows[-1][-1] += data
        elif "th" in self.open:
            self.tables[-1].columns[-1] += data
        elif "h2" in self.open:
            self.heading += data
        elif "style" in self.open:
            self.style += data


def in_html(written: str) -> list[Table]:
    """Read the tables of a page that is well-formed and loads nothing."""
    page = _Page()
    page.feed(written)
    assert '<meta http-equiv="Content-Security-Policy" content="default-src \'none\';' in written
    page.close()
    assert page.open == []
    assert "url(" not in page.style
    assert "@import" not in page.style
    for table in page.tables:
        table.rows = [[_without_separators(cell) for cell in row] for row in table.rows]
    return page.tables


# --- Text -----------------------------------------------------------------------------------------
def in_text(written: str) -> list[Table]:
    """Read the tables of a text by the rules under their heads; no cell leaves its column."""
    blocks = [block.splitlines() for block in written.split("\n\n")]
    return [_table(*block) for block in blocks if any(map(_is_rule, block))]


def _is_rule(line: str) -> bool:
    return re.fullmatch(r"-+(  -+)*", line) is not None


def _table(title: str, head: str, rule: str, *body: str) -> Table:
    spans = [match.span() for match in re.finditer("-+", rule)]
    lines = [_cells(line, spans) for line in body if not _is_rule(line)]
    # Right is where a number stands; a text that does not fill its column never does.
    right = [
        all(cell == cell.strip().rjust(len(cell)) for cell in cells)
        for cells in zip(*lines, strict=True)
    ]
    table = Table(title, [cell.strip() for cell in _cells(head, spans)])
    for line in lines:
        cells = [cell.strip() for cell in line]
        if any(cell for cell, number in zip(cells, right, strict=True) if number):
            table.rows.append([_without_separators(cell) for cell in cells])
        else:
            before = table.rows[-1]  # goes on in this line
            table.rows[-1] = [f"{a} {b}".strip() for a, b in zip(before, cells, strict=True)]
    return table


def _cells(line: str, spans: Sequence[tuple[int, int]]) -> list[str]:
    """Cut a line where the rule says; between columns there is nothing."""
    padded = line.ljust(spans[-1][1])
    assert len(padded) == spans[-1][1]
    for (_, end), (start, _) in pairwise(spans):
        assert padded[end:start].strip() == ""
    return [padded[start:end] for start, end in spans]


def _without_separators(cell: str) -> str:
    return cell.replace(",", "") if _NUMBER.fullmatch(cell) else cell
