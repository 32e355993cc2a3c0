"""`tallystick statement`: what a period came to, as text, JSON, CSV or HTML."""

from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any

import typer

from tallystick.cli.access import in_ledger
from tallystick.cli.customer_terms import Id, existing
from tallystick.cli.output import JsonFlag, fail, print_json
from tallystick.ledger import invoices, statements
from tallystick.ledger.account_tables import Invoice
from tallystick.ledger.database import Transaction
from tallystick.plans.fees import FeeTerms
from tallystick.plans.statement import Statement
from tallystick.settings import get_settings
from tallystick.statements.grid import Grid
from tallystick.statements.html import as_html
from tallystick.statements.seen import seen_of
from tallystick.statements.sheet import in_dollars, instant, lay_out, processing_fees
from tallystick.statements.spreadsheet import as_csv
from tallystick.statements.text import as_text, drawn


class Format(StrEnum):
    """How a statement is written."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"
    HTML = "html"


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command()(statement)


def statement(
    customer: Id,
    period: Annotated[
        int | None,
        typer.Argument(metavar="PERIOD", help="The period's number; the latest if left out."),
    ] = None,
    as_: Annotated[Format, typer.Option("--format", help="How it is written.")] = Format.TEXT,
    operator: Annotated[
        bool, typer.Option("--operator", help="With our cost and margin, which no customer sees.")
    ] = False,
    every: Annotated[bool, typer.Option("--list", help="List all statements instead.")] = False,
    as_json: bool = JsonFlag,
) -> None:
    """Show what a period came to, and what collects it."""
    as_json = as_json or as_ is Format.JSON
    if every:
        if as_ in (Format.CSV, Format.HTML):
            fail(f"--format: {as_.value} is for one statement; a list is text or json")
        _list(customer, operator=operator, as_json=as_json)
        return
    found, collected_by = in_ledger(lambda tx: _read(tx, customer, period))
    shown = found if operator else found.for_customer()
    seen = [seen_of(invoice) for invoice in collected_by]
    settings = get_settings()
    fees = FeeTerms(settings.fee_percent, settings.fee_fixed_usd)
    if as_json:
        beside: dict[str, Any] = {"invoices": [asdict(each) for each in seen]}
        if operator:
            beside["processing_fees_usd"] = processing_fees(seen, fees)
        print_json(shown.model_dump(mode="json") | beside)
        return
    sheet = lay_out(shown, seen, fees)
    write = {Format.TEXT: as_text, Format.CSV: as_csv, Format.HTML: as_html}[as_]
    typer.echo(write(sheet), nl=False)


async def _read(
    tx: Transaction, customer: str, period: int | None
) -> tuple[Statement, Sequence[Invoice]]:
    await existing(tx, customer)
    if period is None:
        stored = await statements.latest(tx, customer)
    else:
        stored = await statements.get(tx, customer, period)
    if stored is None:
        fail(
            f"PERIOD: customer {customer!r} has no statement yet; it is written when a period ends"
            if period is None
            else f"PERIOD: customer {customer!r} has no statement {period}; see them with --list"
        )
    found = stored.statement
    return found, [
        *await invoices.of_period(tx, customer, found.ordinal),
        *await invoices.top_ups_paid(tx, customer, found.period_start, found.period_end),
    ]


def _list(customer: str, *, operator: bool, as_json: bool) -> None:
    async def read(tx: Transaction) -> Sequence[Statement]:
        await existing(tx, customer)
        return [stored.statement for stored in await statements.list_all(tx, customer)]

    found = in_ledger(read)
    if as_json:
        shown = found if operator else [each.for_customer() for each in found]
        print_json([each.model_dump(mode="json") for each in shown])
        return
    rows = tuple(
        (
            each.ordinal,
            instant(each, each.period_start),
            instant(each, each.period_end),
            each.plan,
            each.usage_usd,
            in_dollars(each.due_cents),
        )
        for each in found
    )
    grid = Grid("Statements", ("period", "from", "to", "plan", "usage $", "due $"), rows)
    typer.echo("\n".join(drawn(grid)))
