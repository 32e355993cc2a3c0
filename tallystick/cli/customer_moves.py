"""`tallystick customer move` and `cancel`: onto another plan, and the end of an account."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from tallystick.cli.access import in_ledger
from tallystick.cli.customer_terms import Id, existing, in_force
from tallystick.cli.cycles import tell_cycle
from tallystick.cli.output import JsonFlag, fail, note, print_json
from tallystick.ledger import accounts, customers, plan_moves
from tallystick.ledger.account_tables import BillingAccount
from tallystick.ledger.database import Transaction
from tallystick.plans import PlanTerms
from tallystick.plans.moves import MoveRefusedError, Place, effective_from
from tallystick.plans.periods import period_at


def register(app: typer.Typer) -> None:
    """Add the commands to `tallystick customer`."""
    app.command()(move)
    app.command()(cancel)


def move(
    customer: Id,
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="The plan to move to.")],
    as_json: bool = JsonFlag,
) -> None:
    """Move the customer to another plan: at once within its model, else with the next period.

    A move that is still to come is replaced; to the plan the customer is on takes it back.
    """
    at = in_ledger(lambda tx: _move(tx, customer, plan))
    tell_cycle(customer)
    if as_json:
        print_json({"customer_id": customer, "plan": plan, "valid_from": at})
    else:
        note(f"customer {customer!r} is on plan {plan!r} from {at.isoformat()} on")


async def _move(tx: Transaction, customer: str, plan: str) -> datetime:
    account = await accounts.lock(tx, customer)  # decisions are made one after the other
    now = datetime.now(UTC)
    agreed = await in_force(tx, customer, now)
    wanted = await customers.plan_in_force(tx, plan, now)
    if wanted is None:
        fail(f"PLAN: no plan {plan!r} is in force; `tallystick plan list` lists those that are")
    to_come = await plan_moves.to_come(tx, customer, now)
    try:
        at = effective_from(
            now,
            Place(agreed.plan, agreed.terms.model),
            Place(plan, PlanTerms.read(wanted.terms).model),
            to_come=to_come.plan if to_come else None,
            period_end=_open_period_end(account, now) if account else None,
            ends_at=account.cancel_at if account else None,
        )
    except MoveRefusedError as error:
        fail(f"PLAN: customer {customer!r} is not moved: {error}")
    await plan_moves.add(tx, customer, plan, at)
    if to_come is not None:
        note(f"its move to plan {to_come.plan!r} at {to_come.valid_from.isoformat()} is off")
    return at


def cancel(
    customer: Id,
    now: Annotated[
        bool,
        typer.Option("--now/--at-period-end", help="End within the minute, or with the period."),
    ] = False,
    as_json: bool = JsonFlag,
) -> None:
    """End the customer's account: what is open is settled and collected, then it is refused."""
    at = in_ledger(lambda tx: _cancel(tx, customer, now=now))
    tell_cycle(customer)
    if as_json:
        print_json({"customer_id": customer, "cancel_at": at})
    else:
        note(f"the account of customer {customer!r} ends at {at.isoformat()}")


async def _cancel(tx: Transaction, customer: str, *, now: bool) -> datetime:
    await existing(tx, customer)
    account = await accounts.lock(tx, customer)
    if account is None:
        fail(f"CUSTOMER: {customer!r} has no account; `tallystick customer suspend` stops it")
    instant = datetime.now(UTC)
    at = _next_minute(instant) if now else _open_period_end(account, instant)
    if not await accounts.set_cancel_at(tx, customer, at):
        ends = account.cancel_at or account.closed_until
        fail(f"CUSTOMER: the account of {customer!r} ends at {ends.isoformat()} already")
    return at


def _open_period_end(account: BillingAccount, now: datetime) -> datetime:
    return period_at(account.anchor, account.time_zone, now)[1].end


def _next_minute(now: datetime) -> datetime:
    """Return a whole minute that has not begun: what was served so far lies before it.

    Stripe's sums of meters, which the last period is compared with, are by the minute.
    """
    return now.replace(second=0, microsecond=0) + timedelta(minutes=1)
