"""What a person sees of a run: progress while it lasts, and the tally as one table at its end."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from decimal import Decimal

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from tallystick.cli.reconcile_show import print_differences, print_totals
from tallystick.ledger.account_tables import Invoice
from tallystick.money import plain
from tallystick.plans.statement import Statement
from tallystick.statements.seen import seen_of
from tallystick.statements.sheet import lay_out
from tallystick.statements.text import as_text
from tallystick.tally_report.page import Seen

from .tally import CHARGE, COST, KINDS, Figures, Tally, amount

err = Console(stderr=True, highlight=False, soft_wrap=True)
out = Console(highlight=False, soft_wrap=True)


class Bars:
    """Three bars: requests answered, billed and metered."""

    def __init__(self, progress: Progress, requests: int):
        self._progress = progress
        self._requests = requests
        self._bars: dict[str, TaskID] = {
            name: progress.add_task(name, total=requests)
            for name in ("answered", "billed", "metered")
        }

    def show(self, *, answered: int, billed: int, refused: int, metered: int) -> None:
        """Draw the present counts; a refusal has neither a charge nor a meter event."""
        owing = self._requests - refused
        self._progress.update(self._bars["answered"], completed=answered)
        self._progress.update(self._bars["billed"], completed=billed, total=owing)
        self._progress.update(self._bars["metered"], completed=metered, total=owing)


@contextmanager
def bars(requests: int) -> Generator[Bars, None, None]:
    """Draw bars on standard error while the context is open."""
    with Progress(
        TextColumn("{task.description:9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
    ) as progress:
        yield Bars(progress, requests)


def print_tally(tally: Tally) -> None:
    """Print the three records side by side, and what does not match."""
    table = Table(header_style="bold", box=None, padding=(0, 3, 0, 0))
    table.add_column("tokens and money", no_wrap=True)
    for heading in ("Claude served", "ledger charged", "Stripe accepted"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column()
    for kind in KINDS:
        sides = (tally.claude, tally.ledger, tally.stripe)
        _row(table, kind.replace("_", " "), [_count(each, kind) for each in sides])
    _row(table, "Claude's price", [_money(tally.claude, COST), _money(tally.ledger, COST), None])
    _row(table, "charge", [None, _money(tally.ledger, CHARGE), _money(tally.stripe, CHARGE)])
    out.print(table)
    out.print()
    out.print(
        f"{tally.requests} requests: {tally.answered} answered, {tally.billed} billed, "
        f"{tally.metered} metered, {tally.refused} refused by Claude and free"
    )
    out.print(_lost(tally))


def print_verdict(tally: Tally) -> None:
    """Print whether the records tally, and each difference."""
    differences = tally.differences()
    for difference in differences:
        out.print(f"differs: {difference}", style="red", markup=False)
    if not differences:
        out.print("The three records tally.", style="bold green")


def print_statement(statement: Statement, invoices: Sequence[Invoice], *, agrees: bool) -> None:
    """Print a customer's copy of a statement, and whether Stripe has collected it."""
    sheet = lay_out(statement.for_customer(), [seen_of(invoice) for invoice in invoices])
    out.print(as_text(sheet), markup=False, end="")
    if not agrees:
        out.print("Stripe has not collected what the statement says.", style="red")
    elif invoices:
        out.print("Stripe has collected it, to the cent.", style="bold green")


def print_mended(seen: Seen, *, agrees: bool) -> None:
    """Print what a reconciliation has compared, found and mended."""
    print_totals(seen)
    print_differences(seen)
    if agrees:
        out.print(
            "The lost event is found and counted: the records tally again.", style="bold green"
        )
    else:
        out.print("The records do not tally yet.", style="red")


def _row(table: Table, name: str, cells: list[str | None]) -> None:
    known = {cell for cell in cells if cell is not None}
    mark = "[green]=[/]" if len(known) == 1 else "[bold red]differs[/]"
    table.add_row(name, *(cell or "" for cell in cells), mark)


def _count(figures: Figures, kind: str) -> str:
    return f"{int(amount(figures, kind)):,}"


def _money(figures: Figures, kind: str) -> str:
    return _dollars(amount(figures, kind))


def _dollars(money: Decimal) -> str:
    return f"${plain(money)}"


def _lost(tally: Tally) -> str:
    lost = tally.lost
    if lost.served is None:
        return (
            f"calls with an unknown outcome: {lost.unknown_outcomes} "
            "(Claude's figures are those that its replies reported)"
        )
    return (
        f"lost attempts, our cost: {lost.served} calls served that answered nobody, "
        f"{sum(lost.tokens.values()):,} tokens, {_dollars(lost.cost_usd)}"
    )
