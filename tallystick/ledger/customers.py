"""Customers and the plans they are on: read by admission, written by the command line.

A plan's terms are dated rows that are only ever added, so the terms a record was charged by can be
read again for as long as the record exists.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from tallystick.ledger.database import Transaction, entity
from tallystick.ledger.tables import Customer, CustomerStatus, Plan


@dataclass(frozen=True, slots=True)
class PlanInForce:
    """One dated row of a plan: its name, the instant it began, and its terms as data."""

    plan: str
    valid_from: datetime
    terms: dict[str, Any]


# Statements of the hot path are built once: building costs more than running.
_GET = select(Customer).where(col(Customer.customer_id) == bindparam("of_customer"))
_PLAN_IN_FORCE = (
    select(Plan)
    .where(col(Plan.plan) == bindparam("of_plan"), col(Plan.valid_from) <= bindparam("at"))
    .order_by(col(Plan.valid_from).desc())
    .limit(1)
)


async def get(tx: Transaction, customer_id: str) -> Customer | None:
    """Return the customer, or None."""
    row = (await tx.execute(_GET, {"of_customer": customer_id})).one_or_none()
    return entity(Customer, row) if row else None


async def lock(tx: Transaction, customer_id: str) -> Customer:
    """Return the customer and let nobody else lock it before this transaction ends.

    Raises:
        NoResultFound: when there is no such customer.
    """
    statement = select(Customer).where(col(Customer.customer_id) == customer_id).with_for_update()
    return entity(Customer, (await tx.execute(statement)).one())


async def list_all(tx: Transaction) -> Sequence[Customer]:
    """Return every customer, by id."""
    rows = await tx.execute(select(Customer).order_by(col(Customer.customer_id)))
    return [entity(Customer, row) for row in rows]


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


async def set_status(
    tx: Transaction, customer_id: str, status: CustomerStatus, reason: str | None
) -> None:
    """Let the customer spend, or stop it for a reason that refusals will quote."""
    await _update(tx, customer_id, status=status, status_reason=reason)


async def set_spend_cap(tx: Transaction, customer_id: str, cap_usd: Decimal | None) -> None:
    """Cap what may be charged in a calendar month, in US dollars; None lifts the cap."""
    await _update(tx, customer_id, spend_cap_usd=cap_usd)


async def _update(tx: Transaction, customer_id: str, **values: object) -> None:
    await tx.execute(
        update(Customer).where(col(Customer.customer_id) == customer_id).values(**values)
    )


async def add_plan(tx: Transaction, plan: PlanInForce) -> bool:
    """Add a dated row of a plan; False, and no change, if that instant has one already."""
    statement = (
        insert(Plan)
        .values(plan=plan.plan, valid_from=plan.valid_from, terms=plan.terms)
        .on_conflict_do_nothing()
        .returning(col(Plan.plan))
    )
    return (await tx.execute(statement)).first() is not None


async def plan_in_force(tx: Transaction, plan: str, at: datetime) -> PlanInForce | None:
    """Return the plan's row in force at the instant `at`, or None when there is none."""
    row = (await tx.execute(_PLAN_IN_FORCE, {"of_plan": plan, "at": at})).one_or_none()
    return PlanInForce(row.plan, row.valid_from, row.terms) if row else None
