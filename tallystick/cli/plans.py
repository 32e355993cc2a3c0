"""`tallystick plan`: the dated terms that customers are charged and settled by."""

import re
import tomllib
from dataclasses import asdict
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from tallystick.cli.access import in_ledger
from tallystick.cli.instants import read_instant
from tallystick.cli.output import JsonFlag, fail, note, print_json, print_rows
from tallystick.cli.terms_in_words import plan_in_words
from tallystick.contracts import explain_validation
from tallystick.ledger import customers
from tallystick.ledger.customers import PlanInForce
from tallystick.ledger.database import Transaction
from tallystick.plans import PlanTerms

_plans = typer.Typer(help="List, show and add plans.", no_args_is_help=True)
_NAME = r"[a-z0-9][a-z0-9._-]{0,63}"

Name = Annotated[str, typer.Argument(metavar="NAME", help="The plan's name.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.add_typer(_plans, name="plan")


@_plans.command("list")
def list_(as_json: bool = JsonFlag) -> None:
    """List every plan with the terms it has now."""
    now = datetime.now(UTC)
    latest = {row.plan: row for row in in_ledger(customers.plan_rows) if row.valid_from <= now}
    _print([*latest.values()], as_json)


@_plans.command()
def show(name: Name, as_json: bool = JsonFlag) -> None:
    """Show all terms that a plan has had or will have, each from its date on."""
    _print(in_ledger(lambda tx: _rows(tx, name)), as_json)


async def _rows(tx: Transaction, name: str) -> list[PlanInForce]:
    rows = await customers.plan_rows(tx, {name})
    if not rows:
        fail(f"NAME: no plan {name!r}; `tallystick plan list` lists all")
    return rows


@_plans.command()
def add(
    name: Name,
    file: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="FILE",
            help="The terms as TOML, like [plan.terms] in tallystick/plans/data/examples.toml.",
        ),
    ],
    valid_from: Annotated[
        str, typer.Option(help="The date or instant they begin, in UTC; now by default.")
    ] = "",
    as_json: bool = JsonFlag,
) -> None:
    """Add a plan, or new terms of one from a date on. What there is never changes."""
    if not re.fullmatch(_NAME, name):
        fail(
            f"NAME: {name!r} is no name of a plan; use up to 64 small letters, digits and ._- "
            "beginning with a letter or digit"
        )
    terms, now = _read(file), datetime.now(UTC)
    begins = read_instant(valid_from, "--valid-from")
    row = PlanInForce(name, begins, terms.model_dump(mode="json"))
    in_ledger(lambda tx: _add(tx, row, terms, now))
    _print([row], as_json)


def _read(path: str) -> PlanTerms:
    try:
        # Exact: a number in the file is never a binary float.
        return PlanTerms.read(tomllib.loads(Path(path).read_text("utf-8"), parse_float=Decimal))
    except OSError as error:
        fail(f"--from: {path}: {error.strerror}")
    except ValidationError as error:
        fail(f"--from: {path}: {explain_validation(error, inside='terms')}")
    except ValueError as error:
        fail(f"--from: {path} is not TOML: {error}")


async def _add(tx: Transaction, row: PlanInForce, terms: PlanTerms, now: datetime) -> None:
    earlier = await customers.plan_rows(tx, {row.plan})
    if not earlier:
        await customers.add_plan(tx, row)
        return
    model = PlanTerms.read(earlier[0].terms).model
    if terms.model != model:
        fail(
            f"--from: terms.model: plan {row.plan!r} is {model}, and a plan keeps its model; add "
            "another plan, and move customers to it"
        )
    if row.valid_from < now:
        fail("--valid-from: what has passed is charged by the terms there were; choose a later one")
    if not await customers.add_plan(tx, row):
        fail(f"--valid-from: plan {row.plan!r} has terms from then on; choose another instant")
    note("customers on the plan are charged and settled by these terms from then on")


def _print(rows: list[PlanInForce], as_json: bool) -> None:
    if as_json:
        print_json([_as_dict(row) for row in rows])
        return
    print_rows(
        ("plan", "from", "terms"),
        [(row.plan, row.valid_from, plan_in_words(PlanTerms.read(row.terms))) for row in rows],
    )


def _as_dict(row: PlanInForce) -> dict[str, Any]:
    return asdict(row)
