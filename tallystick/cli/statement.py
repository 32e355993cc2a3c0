"""`tallystick statement`: what a period came to, as text, JSON, CSV or HTML."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from tallystick.cli.access import in_ledger
from tallystick.cli.customer_terms import Id, existing
from tallystick.cli.output import JsonFlag, fail, print_json, print_rows
from tallystick.ledger import invoices, statements
from tallystick.ledger.account_tables import Invoice
from tallystick.ledger.database import Transaction
from tallystick.ledger.statements import Stored
from tallystick.plans.fees import FeeTerms
from tallystick.settings import get_settings
from tallystick.statements.html import as_html
from tallystick.statements.seen import seen_of
from tallystick.statements.sheet import InvoiceSeen, cents, lay_out
from tallystick.statements.spreadsheet import as_csv
from tallystick.statements.text import as_text


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
        typer.Argument(metavar="[PERIOD]", help="The period's number; the latest if left out."),
    ] = None,
    as_: Annotated[Format, typer.Option("--format", help="How it is written.")] = Format.TEXT,
    operator: Annotated[
        bool, typer.Option("--operator", help="With our cost and margin, which no customer sees.")
    ] = False,
    every: Annotated[bool, typer.Option("--list", help="List all statements instead.")] = False,
    as_json: bool = JsonFlag,
) -> None:
    """Show what a period came to, and what collects it."""
    if every:
        _list(customer, as_json=as_json)
        return

    async def read(tx: Transaction) -> tuple[Stored | None, Sequence[Invoice]]:
        await existing(tx, customer)
        if period is None:
            found = await statements.latest(tx, customer)
        else:
            found = await statements.get(tx, customer, period)
        if found is None:
            return None, ()
        return found, await invoices.of_period(tx, customer, found.statement.ordinal)

    stored, collected_by = in_ledger(read)
    if stored is None:
        which = "no statement yet" if period is None else f"no statement {period}"
        fail(f"PERIOD: customer {customer!r} has {which}; see them with --list")
    shown = stored.statement if operator else stored.statement.for_customer()
    seen = [seen_of(invoice) for invoice in collected_by]
    if as_json or as_ is Format.JSON:
        print_json({**shown.model_dump(mode="json"), "invoices": [_as_data(each) for each in seen]})
        return
    settings = get_settings()
    sheet = lay_out(shown, seen, FeeTerms(settings.fee_percent, settings.fee_fixed_usd))
    write = {Format.TEXT: as_text, Format.CSV: as_csv, Format.HTML: as_html}[as_]
    typer.echo(write(sheet), nl=False)


def _list(customer: str, *, as_json: bool) -> None:
    async def read(tx: Transaction) -> Sequence[Stored]:
        await existing(tx, customer)
        return await statements.list_all(tx, customer)

    found = [stored.statement for stored in in_ledger(read)]
    if as_json:
        print_json([each.for_customer().model_dump(mode="json") for each in found])
        return
    print_rows(
        ("period", "from", "to", "plan", "usage $", "due $"),
        [
            (
                each.ordinal,
                each.period_start,
                each.period_end,
                each.plan,
                each.usage_usd,
                cents(each.due_cents),
            )
            for each in found
        ],
    )


def _as_data(each: InvoiceSeen) -> dict[str, Any]:
    return {
        "invoice_id": each.invoice_id,
        "status": each.status,
        "currency": each.currency,
        "total_cents": each.total_cents,
        "tax_cents": each.tax_cents,
        "paid_cents": each.paid_cents,
        "due_at": each.due_at,
        "paid_at": each.paid_at,
    }
