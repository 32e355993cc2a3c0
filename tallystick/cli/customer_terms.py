"""`tallystick customer cap` and `terms`: what a customer may spend, and what it has negotiated."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated
from zoneinfo import ZoneInfo

import typer
from pydantic import ValidationError

from tallystick.cli.access import in_ledger
from tallystick.cli.instants import read_instant
from tallystick.cli.output import JsonFlag, fail, note, parse_usd, print_json, print_rows
from tallystick.cli.terms_in_words import in_words
from tallystick.contracts import explain_validation
from tallystick.ledger import accounts, customers, terms
from tallystick.ledger.database import Transaction
from tallystick.ledger.tables import Customer, CustomerTermsRow
from tallystick.ledger.terms import TermsInForce
from tallystick.money import plain
from tallystick.plans import CustomerTerms

Id = Annotated[str, typer.Argument(metavar="CUSTOMER", help="The customer's id.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `tallystick customer`."""
    app.command()(cap)
    app.command("terms")(terms_)


def cap(
    customer: Id,
    spend_cap: Annotated[
        str, typer.Option(help="Dollars that may be charged in a calendar month, or none.")
    ],
) -> None:
    """Cap what the customer may be charged in a month; requests beyond it are refused."""
    limit = None if spend_cap == "none" else parse_usd(spend_cap, "--spend-cap")

    async def set_cap(tx: Transaction) -> None:
        await existing(tx, customer)
        await customers.set_spend_cap(tx, customer, limit)

    in_ledger(set_cap)
    note(
        f"customer {customer!r} has no spend cap"
        if limit is None
        else f"customer {customer!r} may be charged up to ${plain(limit)} in a calendar month"
    )


def terms_(
    customer: Id,
    valid_from: Annotated[
        str,
        typer.Option("--from", help="A date or instant, in the customer's time zone; now."),
    ] = "",
    markup: Annotated[
        str, typer.Option(help="Fraction of the cost that is added, such as 0.15.")
    ] = "",
    markup_on: Annotated[
        list[str] | None,
        typer.Option(help="The same for one token kind, such as output=0.3. May be repeated."),
    ] = None,
    discount: Annotated[
        str, typer.Option(help="Fraction let off after markups, such as 0.05.")
    ] = "",
    as_plan: Annotated[
        bool, typer.Option("--as-plan", help="Nothing of its own: the plan's terms alone.")
    ] = False,
    as_json: bool = JsonFlag,
) -> None:
    """Show what the customer has negotiated, or with options: agree on it from a date on.

    What is given replaces all that was agreed before; what is not given is as in the plan.
    """
    given = {
        **({"markup": markup} if markup else {}),
        **({"markup_by_kind": dict(map(_kind_and_fraction, markup_on))} if markup_on else {}),
        **({"discount": discount} if discount else {}),
    }
    if given and as_plan:
        fail("--as-plan: leaves no room for terms of the customer's own")
    if given or as_plan:
        try:
            agreed = CustomerTerms.read(given)
        except ValidationError as error:
            fail(explain_validation(error, inside="terms"))
        in_ledger(lambda tx: _agree(tx, customer, valid_from, agreed))
    rows = in_ledger(lambda tx: _own_terms(tx, customer))
    if as_json:
        print_json([row.model_dump() for row in rows])
    elif rows:
        print_rows(("from", "own terms"), [(row.valid_from, in_words(row.terms)) for row in rows])
    else:
        note(f"customer {customer!r} has the plan's terms alone")


async def existing(tx: Transaction, customer: str) -> Customer:
    """Return the customer, or say that there is none."""
    row = await customers.get(tx, customer)
    if row is None:
        fail(f"CUSTOMER: no customer {customer!r}; `tallystick customer add {customer}` adds it")
    return row


async def in_force(tx: Transaction, customer: str, now: datetime) -> TermsInForce:
    """Return the terms that an existing customer has now."""
    await existing(tx, customer)
    standing = await terms.standing(tx, customer, now)
    assert standing is not None  # noqa: S101 - it exists
    if standing.agreed is None:
        plan = standing.customer.plan
        fail(f"CUSTOMER: plan {plan!r} has no terms in force; run `tallystick setup`")
    return standing.agreed


async def _agree(tx: Transaction, customer: str, valid_from: str, agreed: CustomerTerms) -> None:
    row = await existing(tx, customer)
    at = read_instant(valid_from, "--from", ZoneInfo(row.time_zone))
    account = await accounts.lock(tx, customer)
    if account is not None and at < account.closed_until:
        fail(
            f"--from: all before {account.closed_until.isoformat()} is closed, and its statements "
            "are written; choose a later instant"
        )
    if not await terms.add(tx, customer, at, agreed):
        fail(
            f"--from: {at.isoformat()} has terms already, and rows are never changed; "
            "choose a later instant"
        )
    if valid_from and at < datetime.now(UTC):
        note("usage that is recorded already stays charged as it was")


async def _own_terms(tx: Transaction, customer: str) -> Sequence[CustomerTermsRow]:
    await existing(tx, customer)
    return await terms.list_own(tx, customer)


def _kind_and_fraction(text: str) -> tuple[str, str]:
    kind, _, fraction = text.partition("=")
    return kind, fraction
