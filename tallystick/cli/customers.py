"""`tallystick customer`: who is billed, as whom in Stripe, and whether it may spend."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated
from zoneinfo import ZoneInfo, available_timezones

import typer
from pydantic import TypeAdapter, ValidationError

from tallystick.cli import customer_content, customer_moves, customer_show, customer_terms
from tallystick.cli.access import in_ledger
from tallystick.cli.customer_show import COLUMNS, as_dict, cells
from tallystick.cli.customer_terms import Id, existing, in_force
from tallystick.cli.cycles import tell_cycle
from tallystick.cli.instants import read_instant
from tallystick.cli.output import JsonFlag, fail, note, print_json, print_rows
from tallystick.contracts import CustomerId
from tallystick.ledger import accounts, customers, plan_moves, terms
from tallystick.ledger.database import Transaction
from tallystick.ledger.tables import Customer
from tallystick.plans.moves import billing_zone
from tallystick.plans.periods import billing_period
from tallystick.services import endpoints
from tallystick.settings import get_settings

_customers = typer.Typer(
    help="Add, show, list, move, suspend and resume customers, and set their terms.",
    no_args_is_help=True,
)
customer_show.register(_customers)
customer_moves.register(_customers)
customer_terms.register(_customers)
customer_content.register(_customers)

Anchor = Annotated[
    str,
    typer.Option(
        help="When the first period began: a date or instant of the last month, in the zone that "
        "periods are counted in; now by default."
    ),
]


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
    time_zone: Annotated[
        str, typer.Option(help="Of its days and months, and of prepaid periods.")
    ] = "UTC",
    anchor: Anchor = "",
    as_json: bool = JsonFlag,
) -> None:
    """Add a customer, open its account, and add it to Stripe. Adding it again changes nothing."""
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
    stored = in_ledger(lambda tx: _add(tx, row, anchor))
    _ready(stored)
    if as_json:
        print_json(as_dict(stored))
    else:
        pairs = zip(COLUMNS, cells(stored), strict=True)
        print_rows(("", ""), [*pairs, ("time zone", stored.time_zone)])


async def _add(tx: Transaction, row: Customer, anchor: str) -> Customer:
    if await customers.plan_in_force(tx, row.plan, datetime.now(UTC)) is None:
        fail(f"--plan: no plan {row.plan!r} is in force; `tallystick setup` adds the examples")
    known = row.stripe_customer_id and await customers.of_stripe(tx, row.stripe_customer_id)
    if known and known != row.customer_id:
        fail(f"--stripe-customer: {row.stripe_customer_id} is customer {known!r} already")
    if await customers.add(tx, row):
        await _open(tx, row, anchor)
    else:
        note(f"customer {row.customer_id!r} exists already; nothing is changed")
    return await existing(tx, row.customer_id)


@_customers.command("open")
def open_(customer: Id, anchor: Anchor = "") -> None:
    """Open the account of a customer that has none, and see that it is looked after."""

    async def open_account(tx: Transaction) -> Customer:
        row = await existing(tx, customer)
        account = await accounts.get(tx, customer)
        if account is None:
            await _open(tx, row, anchor)
        else:
            note(f"customer {customer!r} has an account since {account.anchor.isoformat()}")
        return row

    _ready(in_ledger(open_account))


async def _open(tx: Transaction, row: Customer, anchor: str) -> None:
    now = datetime.now(UTC)
    agreed = await in_force(tx, row.customer_id, now)
    zone = billing_zone(agreed.terms.model, row.time_zone)
    at = read_instant(anchor, "--anchor", ZoneInfo(zone)).astimezone(UTC) if anchor else now
    if not at <= now < billing_period(at, zone, 1).end:
        fail(
            f"--anchor: the first period has to be open now; {at.isoformat()} is "
            f"{'still to come' if at > now else 'more than a month ago'}"
        )
    account = await accounts.open_account(tx, row.customer_id, at, zone, now)
    moves = await plan_moves.list_all(tx, row.customer_id)
    if moves and account.anchor < moves[-1].valid_from:
        fail(
            f"--anchor: the customer moved to plan {moves[-1].plan!r} at "
            f"{moves[-1].valid_from.isoformat()}; its first period begins in a later minute"
        )


def _ready(row: Customer) -> None:
    """See that Stripe knows the customer, and that a cycle looks after its account."""
    if row.stripe_customer_id is None:
        mapped = asyncio.run(_create_in_stripe(row))
        in_ledger(lambda tx: customers.set_stripe_customer(tx, row.customer_id, mapped))
        row.stripe_customer_id = mapped
    tell_cycle(row.customer_id)


async def _create_in_stripe(row: Customer) -> str:
    from activities.stripe_catalog import create_customer
    from activities.stripe_clients import stripe_client

    settings = get_settings()
    async with endpoints(settings) as where, stripe_client(where, settings) as client:
        return await create_customer(client, row.customer_id, row.name)


@_customers.command("list")
def list_(as_json: bool = JsonFlag) -> None:
    """List all customers."""
    rows = in_ledger(lambda tx: customers.list_all(tx, datetime.now(UTC)))
    if as_json:
        print_json([as_dict(row) for row in rows])
    else:
        print_rows(COLUMNS, [cells(row) for row in rows])


@_customers.command()
def suspend(
    customer: Id, reason: Annotated[str, typer.Option(help="What refused requests are told.")]
) -> None:
    """Refuse the customer's new requests until it is resumed."""

    async def stop(tx: Transaction) -> None:
        await _not_ended(tx, customer)
        await customers.suspend(tx, customer, "operator", reason)

    in_ledger(stop)
    note(f"customer {customer!r} is suspended")


@_customers.command()
def resume(customer: Id) -> None:
    """Serve the customer again, whoever suspended it."""

    async def lift(tx: Transaction) -> None:
        await _not_ended(tx, customer)
        await customers.restore(tx, customer, "operator")

    in_ledger(lift)
    note(f"customer {customer!r} is active")


async def _not_ended(tx: Transaction, customer: str) -> None:
    await existing(tx, customer)
    standing = await terms.standing(tx, customer, datetime.now(UTC))
    if standing is not None and standing.customer.suspended_by == "ended":
        fail(f"CUSTOMER: {customer!r} is suspended for good: {standing.customer.status_reason}")
