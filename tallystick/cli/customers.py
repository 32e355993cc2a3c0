"""`tallystick customer`: who is billed, on which terms, and as whom in Stripe."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any
from zoneinfo import available_timezones

import typer
from pydantic import TypeAdapter, ValidationError

from tallystick.cli import customer_terms
from tallystick.cli.access import in_ledger
from tallystick.cli.customer_terms import Id, existing, in_words
from tallystick.cli.output import JsonFlag, fail, note, print_json, print_rows
from tallystick.contracts import CustomerId
from tallystick.ledger import customers, reservations, terms
from tallystick.ledger.database import Transaction
from tallystick.ledger.tables import Customer
from tallystick.plans.periods import calendar_month
from tallystick.services import endpoints
from tallystick.settings import get_settings

_customers = typer.Typer(
    help="Add, show, list, suspend and resume customers, and set their terms.",
    no_args_is_help=True,
)
customer_terms.register(_customers)

_COLUMNS = ("customer", "name", "plan", "status", "stripe customer", "spend cap $")


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.add_typer(_customers, name="customer")


@_customers.command()
def add(
    customer: Id,
    name: Annotated[str, typer.Option(help="A name for people; the id by default.")] = "",
    plan: Annotated[str, typer.Option(help="The plan that charges are made by.")] = "pass-through",
    stripe_customer: Annotated[
        str, typer.Option(help="An existing Stripe customer (cus_...); created when not given.")
    ] = "",
    time_zone: Annotated[str, typer.Option(help="For days and months on statements.")] = "UTC",
    as_json: bool = JsonFlag,
) -> None:
    """Add a customer, and its customer in Stripe. Adding it again changes nothing."""
    try:
        TypeAdapter(CustomerId).validate_python(customer)
    except ValidationError:
        fail(
            f"CUSTOMER: {customer!r} is no customer id; use up to 64 letters, digits and ._:@+=- "
            "beginning with a letter or digit"
        )
    if time_zone not in available_timezones():
        fail(f"--time-zone: {time_zone!r} is not a time zone; use a name like Europe/Berlin")
    row = Customer(
        customer_id=customer,
        name=name or customer,
        plan=plan,
        stripe_customer_id=stripe_customer or None,
        time_zone=time_zone,
    )
    stored = in_ledger(lambda tx: _add(tx, row))
    if stored.stripe_customer_id is None:
        mapped = asyncio.run(_create_in_stripe(stored))
        in_ledger(lambda tx: customers.set_stripe_customer(tx, customer, mapped))
        stored.stripe_customer_id = mapped
    if as_json:
        print_json(_as_dict(stored))
    else:
        _show(stored, {})


async def _add(tx: Transaction, row: Customer) -> Customer:
    if await customers.plan_in_force(tx, row.plan, datetime.now(UTC)) is None:
        fail(f"--plan: no plan {row.plan!r} is in force; `tallystick setup` adds the examples")
    if not await customers.add(tx, row):
        note(f"customer {row.customer_id!r} exists already; nothing is changed")
    return await existing(tx, row.customer_id)


async def _create_in_stripe(row: Customer) -> str:
    from activities.stripe_catalog import create_customer
    from activities.stripe_clients import stripe_client

    settings = get_settings()
    async with endpoints(settings) as where, stripe_client(where, settings) as client:
        return await create_customer(client, row.customer_id, row.name)


@_customers.command()
def show(customer: Id, as_json: bool = JsonFlag) -> None:
    """Show one customer: its terms in force, and what it was charged this month."""
    row, money = in_ledger(lambda tx: _with_money(tx, customer))
    if as_json:
        print_json({**_as_dict(row), **money})
        return
    _show(
        row,
        {
            "terms": in_words(money["terms"] or {}),
            "own terms from": money["own_terms_from"],
            "month from": money["month_from"],
            "charged in it $": money["month_charged_usd"],
            "reserved $": money["reserved_usd"],
        },
    )


async def _with_money(tx: Transaction, customer: str) -> tuple[Customer, dict[str, Any]]:
    row, now = await existing(tx, customer), datetime.now(UTC)
    standing = await terms.standing(tx, customer, now)
    agreed = standing.agreed if standing else None
    month = calendar_month(now, row.time_zone)
    taken = await reservations.used(tx, customer, since=month.start)
    return row, {
        "terms": agreed.terms.model_dump(mode="json") if agreed else None,
        "own_terms_from": agreed.own_from if agreed else None,
        "month_from": month.start,
        "month_charged_usd": taken.spent_usd,
        "reserved_usd": taken.reserved_usd,
    }


@_customers.command("list")
def list_(as_json: bool = JsonFlag) -> None:
    """List all customers."""
    rows = in_ledger(lambda tx: customers.list_all(tx, datetime.now(UTC)))
    if as_json:
        print_json([_as_dict(row) for row in rows])
    else:
        print_rows(_COLUMNS, [_cells(row) for row in rows])


@_customers.command()
def suspend(
    customer: Id, reason: Annotated[str, typer.Option(help="What refused requests are told.")]
) -> None:
    """Refuse the customer's new requests until it is resumed."""
    stopped = in_ledger(lambda tx: _suspend(tx, customer, reason))
    note(f"customer {customer!r} is suspended" if stopped else f"customer {customer!r} has ended")


async def _suspend(tx: Transaction, customer: str, reason: str) -> bool:
    await existing(tx, customer)
    return await customers.suspend(tx, customer, "operator", reason)


@_customers.command()
def resume(customer: Id) -> None:
    """Serve the customer again, whoever suspended it."""

    async def lift(tx: Transaction) -> None:
        row = await existing(tx, customer)
        if not await customers.restore(tx, customer, "operator") and row.suspended_by == "ended":
            fail(f"CUSTOMER: {customer!r} cannot be resumed: {row.status_reason}")

    in_ledger(lift)
    note(f"customer {customer!r} is active")


def _show(row: Customer, more: Mapping[str, Any]) -> None:
    cells = zip(_COLUMNS, _cells(row), strict=True)
    print_rows(("", ""), [*cells, ("time zone", row.time_zone), *more.items()])


def _as_dict(row: Customer) -> dict[str, Any]:
    return row.model_dump(warnings=False)  # a row's status is text, as good as its enumeration


def _cells(row: Customer) -> tuple[Any, ...]:
    status = f"{row.status}: {row.status_reason}" if row.status_reason else str(row.status)
    return (
        row.customer_id,
        row.name,
        row.plan,
        status,
        row.stripe_customer_id,
        row.spend_cap_usd,
    )
