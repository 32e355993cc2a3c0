"""The terms a customer is charged by at an instant: its plan's row, and its own row over that.

Both rows are append-only and named by the instant they began, so a record that keeps the two
instants keeps its terms, whatever is agreed later.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from tallystick.ledger import customers
from tallystick.ledger.database import Transaction, entity
from tallystick.ledger.tables import Customer, CustomerTermsRow
from tallystick.plans import CustomerTerms, PlanTerms


@dataclass(frozen=True, slots=True)
class TermsInForce:
    """What a customer pays, and which rows say so; `own_from` is None without an own row."""

    terms: PlanTerms
    plan: str
    plan_from: datetime
    own_from: datetime | None


async def in_force(tx: Transaction, customer: Customer, at: datetime) -> TermsInForce | None:
    """Return the customer's terms at the instant `at`, or None while its plan has none.

    Raises:
        pydantic.ValidationError: for a row that was edited by hand.
    """
    plan = await customers.plan_in_force(tx, customer.plan, at)
    if plan is None:
        return None
    terms = PlanTerms.read(plan.terms)
    own = await _own_row(tx, customer.customer_id, at)
    if own is None:
        return TermsInForce(terms, plan.plan, plan.valid_from, None)
    negotiated = terms.negotiated(CustomerTerms.read(own.terms))
    return TermsInForce(negotiated, plan.plan, plan.valid_from, own.valid_from)


async def as_recorded(
    tx: Transaction, customer_id: str, plan: str, plan_from: datetime, own_from: datetime | None
) -> PlanTerms:
    """Return the terms that a usage record was charged by, from the rows that it names."""
    row = await customers.plan_in_force(tx, plan, plan_from)
    assert row is not None  # noqa: S101 - plans are append-only
    terms = PlanTerms.read(row.terms)
    if own_from is None:
        return terms
    own = await _own_row(tx, customer_id, own_from)
    assert own is not None  # noqa: S101 - and so are customers' own terms
    return terms.negotiated(CustomerTerms.read(own.terms))


async def add(
    tx: Transaction, customer_id: str, valid_from: datetime, terms: CustomerTerms
) -> bool:
    """Add a dated row of a customer's own terms; False, and no change, if that instant has one."""
    statement = (
        insert(CustomerTermsRow)
        .values(
            customer_id=customer_id,
            valid_from=valid_from,
            terms=terms.model_dump(mode="json", exclude_defaults=True),
        )
        .on_conflict_do_nothing()
        .returning(col(CustomerTermsRow.customer_id))
    )
    return (await tx.execute(statement)).first() is not None


async def list_own(tx: Transaction, customer_id: str) -> Sequence[CustomerTermsRow]:
    """Return all rows of a customer's own terms, oldest first."""
    statement = (
        select(CustomerTermsRow)
        .where(col(CustomerTermsRow.customer_id) == customer_id)
        .order_by(col(CustomerTermsRow.valid_from))
    )
    return [entity(CustomerTermsRow, row) for row in await tx.execute(statement)]


async def _own_row(tx: Transaction, customer_id: str, at: datetime) -> CustomerTermsRow | None:
    statement = (
        select(CustomerTermsRow)
        .where(
            col(CustomerTermsRow.customer_id) == customer_id,
            col(CustomerTermsRow.valid_from) <= at,
        )
        .order_by(col(CustomerTermsRow.valid_from).desc())
        .limit(1)
    )
    row = (await tx.execute(statement)).one_or_none()
    return entity(CustomerTermsRow, row) if row else None
