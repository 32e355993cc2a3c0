"""`tallystick usage` and `ledger export`: what was used, and the evidence."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple
from decimal import Decimal
from typing import Annotated, Any

import typer

from tallystick.cli import ledger_content
from tallystick.cli.access import in_ledger
from tallystick.cli.customer_terms import existing
from tallystick.cli.output import JsonFlag, print_json, print_rows
from tallystick.ledger import reports
from tallystick.ledger.database import Transaction
from tallystick.ledger.reports import Totals
from tallystick.lost_calls import LostCalls, lost_calls
from tallystick.money import from_nano_usd
from tallystick.pricing import TOKEN_KINDS

_exports = typer.Typer(help="The ledger's records.", no_args_is_help=True)
ledger_content.register(_exports)

NOTHING = Decimal(0)

_EXPORTED = {
    "served": "served_at",
    "customer": "customer_id",
    "request": "request_id",
    "model": "model",
    "input": "input_tokens",
    "output": "output_tokens",
    "charge $": "effective_charge_usd",
}
"""What a person sees of a record; --json has all of it."""

Customer = Annotated[str, typer.Option("--customer", help="Only this customer's.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.command()(usage)
    app.add_typer(_exports, name="ledger")


def usage(customer: Customer = "", as_json: bool = JsonFlag) -> None:
    """Show what each customer used, what it cost and what was charged.

    Calls without an answer are our cost and not the customer's; until reconciliation has settled
    them, what they cost is an estimate.
    """

    async def look(tx: Transaction) -> tuple[list[Totals], dict[str, LostCalls]]:
        if customer:
            await existing(tx, customer)
        totals = await reports.totals(tx, customer or None)
        return totals, await lost_calls(tx, customer or None)

    rows, lost = in_ledger(look)
    if as_json:
        known = {row.customer_id: row for row in rows}
        print_json([_as_dict(name, known, lost) for name in sorted({*known, *lost})])
        return
    kinds = list(rows[0].tokens) if rows else []
    print_rows(
        ("customer", "calls", *(kind.replace("_", " ") for kind in kinds), "cost $", "charge $"),
        [
            (row.customer_id, row.requests, *row.tokens.values(), row.cost_usd, row.charge_usd)
            for row in rows
        ],
        title="Tokens and money",
    )
    if lost:
        print_rows(
            (
                "customer",
                "failed",
                "outcome unknown",
                "our cost $ (estimated)",
                "settled",
                "our cost $",
            ),
            [(name, *astuple(calls)) for name, calls in sorted(lost.items())],
            title="Calls without an answer, charged to nobody",
        )


def _as_dict(
    name: str, totals: Mapping[str, Totals], lost: Mapping[str, LostCalls]
) -> dict[str, Any]:
    used = totals.get(name) or Totals(name, 0, dict.fromkeys(TOKEN_KINDS, 0), NOTHING, NOTHING, 0)
    return {**asdict(used), "calls_without_answer": asdict(lost.get(name, LostCalls()))}


@_exports.command()
def export(customer: Customer = "", as_json: bool = JsonFlag) -> None:
    """Print every usage record with its id chain; with --json one record a line.

    A record is shown as it was written; `effective_...` is what holds with its adjustments.
    """

    async def show(tx: Transaction) -> Sequence[dict[str, Any]]:
        if customer:
            await existing(tx, customer)
        shown: list[dict[str, Any]] = []
        async for record in reports.records(tx, customer or None):
            for priced in (record, *record["adjustments"]):
                priced["charge_usd"] = _in_usd(priced.pop("charge_nano_usd"))
            record["effective_charge_usd"] = _in_usd(record.pop("effective_charge_nano_usd"))
            if as_json:
                print_json(record)
            else:
                shown.append(record)
        return shown

    rows = in_ledger(show)
    if not as_json:
        print_rows([*_EXPORTED], [[row[name] for name in _EXPORTED.values()] for row in rows])


def _in_usd(nano: Decimal | int | None) -> Decimal | None:
    return None if nano is None else from_nano_usd(int(nano))
