"""Customers and the plans they are on: read by admission, written by the command line.

A plan's terms are dated rows that are only ever added, so the terms a record was charged by can be
read again for as long as the record exists. Which plan a customer is on at an instant is said here
once (`MOVED`, `plan_then`), for every statement that asks.

A suspension says who made it, and only as much can lift it: a payment that arrives must not restore
a customer whom a person has stopped, and nobody restores an account that has ended.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from sqlalchemy import ColumnElement, bindparam, func, or_, select, true, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from tallystick.ledger.account_tables import PlanMove
from tallystick.ledger.database import Transaction, entity
from tallystick.ledger.tables import Customer, CustomerStatus, Plan


@dataclass(frozen=True, slots=True)
class PlanInForce:
    """One dated row of a plan: its name, the instant it began, and its terms as data."""

    plan: str
    valid_from: datetime
    terms: dict[str, Any]


Suspender = Literal["payment", "operator", "ended"]
"""Who keeps a customer from spending: an unpaid invoice, a person, or the end of its account."""
_STRENGTH: tuple[Suspender, ...] = ("payment", "operator", "ended")
"""Each may take the place of those before it, or lift them, and no other."""

# The latest decision that has taken effect at `at`. Decisions are made one after the other under
# the account's lock and none takes effect before it is made, so the plan of an instant that has
# passed never changes; and a move that is still to come is replaced by deciding anew.
MOVED = (
    select(col(PlanMove.plan))
    .where(
        col(PlanMove.customer_id) == col(Customer.customer_id),
        col(PlanMove.valid_from) <= bindparam("at"),
    )
    .order_by(col(PlanMove.plan_move_id).desc())
    .limit(1)
    .lateral("moved")
)
"""The customer's last move at the instant `at`; to be joined from the left, it may have none."""


def plan_then() -> ColumnElement[str]:
    """Return the plan the customer is on at the instant `at`, in a statement that joins `MOVED`."""
    return func.coalesce(MOVED.c.plan, col(Customer.plan))


def columns_then() -> list[Any]:
    """Return a customer's columns at the instant `at`: `plan` is the one in force then."""
    columns = {name: col(getattr(Customer, name)) for name in Customer.model_fields}
    return [*{**columns, "plan": plan_then().label("plan")}.values()]


# Statements of the hot path are built once: building costs more than running.
_GET = select(Customer).where(col(Customer.customer_id) == bindparam("of_customer"))
_PLAN_IN_FORCE = (
    select(Plan)
    .where(col(Plan.plan) == bindparam("of_plan"), col(Plan.valid_from) <= bindparam("at"))
    .order_by(col(Plan.valid_from).desc())
    .limit(1)
)


async def get(tx: Transaction, customer_id: str) -> Customer | None:
    """Return the customer as it was added, on its first plan, or None.

    `tallystick.ledger.terms.standing` tells the plan it is on.
    """
    row = (await tx.execute(_GET, {"of_customer": customer_id})).one_or_none()
    return entity(Customer, row) if row else None


async def of_stripe(tx: Transaction, stripe_customer_id: str) -> str | None:
    """Return whom Stripe's customer is mapped to, if anybody."""
    statement = select(col(Customer.customer_id)).where(
        col(Customer.stripe_customer_id) == stripe_customer_id
    )
    return (await tx.execute(statement)).scalar_one_or_none()


async def lock(tx: Transaction, customer_id: str) -> Customer:
    """Return the customer and let nobody else lock it before this transaction ends.

    Raises:
        NoResultFound: when there is no such customer.
    """
    # Short of the key: rows that refer to the customer can still be written meanwhile.
    statement = (
        select(Customer)
        .where(col(Customer.customer_id) == customer_id)
        .with_for_update(key_share=True)
    )
    return entity(Customer, (await tx.execute(statement)).one())


async def list_all(tx: Transaction, at: datetime) -> Sequence[Customer]:
    """Return every customer on the plan it is on at the instant `at`, by id."""
    statement = (
        select(*columns_then())
        .select_from(Customer)
        .outerjoin(MOVED, true())
        .order_by(col(Customer.customer_id))
    )
    return [entity(Customer, row) for row in await tx.execute(statement, {"at": at})]


async def add(tx: Transaction, customer: Customer) -> bool:
    """Insert the customer; False, and no change, if the id exists."""
    values = customer.model_dump(exclude={"created_at"})
    statement = (
        insert(Customer).values(values).on_conflict_do_nothing(index_elements=["customer_id"])
    )
    return (await tx.execute(statement.returning(col(Customer.customer_id)))).first() is not None


async def set_stripe_customer(
    tx: Transaction, customer_id: str, stripe_customer_id: str | None
) -> None:
    """Map the customer to Stripe's."""
    await _update(tx, customer_id, stripe_customer_id=stripe_customer_id)


async def suspend(tx: Transaction, customer_id: str, by: Suspender, reason: str) -> bool:
    """Stop the customer for a reason that refusals will quote; False where one is stopped harder.

    A suspension of the same kind takes the new reason.
    """
    return await _update(
        tx,
        customer_id,
        or_(col(Customer.status) == CustomerStatus.ACTIVE, _suspended_by_up_to(by)),
        status=CustomerStatus.SUSPENDED,
        status_reason=reason,
        suspended_by=by,
    )


async def restore(tx: Transaction, customer_id: str, by: Literal["payment", "operator"]) -> bool:
    """Let the customer spend again; False where it may, or where something harder stops it.

    A payment lifts what a missing payment has done, and the operator lifts that too.
    """
    return await _update(
        tx,
        customer_id,
        _suspended_by_up_to(by),
        status=CustomerStatus.ACTIVE,
        status_reason=None,
        suspended_by=None,
    )


def ended_words(at: datetime) -> str:
    """Say why a customer whose account has ended is refused."""
    return f"its account ended at {at.astimezone(UTC):%Y-%m-%d %H:%M %Z}"


def _suspended_by_up_to(by: Suspender) -> ColumnElement[bool]:
    # Rows from before it was noted: only a person could suspend.
    suspended_by = func.coalesce(col(Customer.suspended_by), "operator")
    weaker = _STRENGTH[: _STRENGTH.index(by) + 1]
    return (col(Customer.status) == CustomerStatus.SUSPENDED) & suspended_by.in_(weaker)


async def set_spend_cap(tx: Transaction, customer_id: str, cap_usd: Decimal | None) -> None:
    """Cap what may be charged in a calendar month, in US dollars; None lifts the cap."""
    await _update(tx, customer_id, spend_cap_usd=cap_usd)


async def _update(
    tx: Transaction, customer_id: str, *only: ColumnElement[bool], **values: object
) -> bool:
    statement = update(Customer).where(col(Customer.customer_id) == customer_id, *only)
    return (await tx.execute(statement.values(**values))).rowcount > 0


async def add_plan(tx: Transaction, plan: PlanInForce) -> bool:
    """Add a dated row of a plan; False, and no change, if that instant has one already."""
    statement = (
        insert(Plan)
        .values(plan=plan.plan, valid_from=plan.valid_from, terms=plan.terms)
        .on_conflict_do_nothing()
        .returning(col(Plan.plan))
    )
    return (await tx.execute(statement)).first() is not None


async def plan_rows(tx: Transaction, names: Collection[str] | None = None) -> list[PlanInForce]:
    """Return all dated rows of the plans of these names, or of all, by name and instant."""
    statement = select(Plan).order_by(col(Plan.plan), col(Plan.valid_from))
    if names is not None:
        statement = statement.where(col(Plan.plan).in_(names))
    rows = await tx.execute(statement)
    return [PlanInForce(row.plan, row.valid_from, row.terms) for row in rows]


async def plan_in_force(tx: Transaction, plan: str, at: datetime) -> PlanInForce | None:
    """Return the plan's row in force at the instant `at`, or None when there is none."""
    row = (await tx.execute(_PLAN_IN_FORCE, {"of_plan": plan, "at": at})).one_or_none()
    return PlanInForce(row.plan, row.valid_from, row.terms) if row else None
