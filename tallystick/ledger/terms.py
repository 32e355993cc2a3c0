"""The terms a customer is charged by at an instant: its plan's row, and its own row over that.

Both rows are append-only and named by the instant they began, so a record that keeps the two
instants keeps its terms, whatever is agreed later.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, FromClause, bindparam, select, true
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import SQLModel, col

from tallystick.ledger import customers
from tallystick.ledger.database import Transaction, entity
from tallystick.ledger.tables import Customer, CustomerTermsRow, Plan
from tallystick.plans import CustomerTerms, PlanTerms


@dataclass(frozen=True, slots=True)
class TermsInForce:
    """What a customer pays, and which rows say so; `own_from` is None without an own row."""

    terms: PlanTerms
    plan: str
    plan_from: datetime
    own_from: datetime | None


@dataclass(frozen=True, slots=True)
class Standing:
    """A customer and its terms at an instant; `agreed` is None while its plan has no terms."""

    customer: Customer
    agreed: TermsInForce | None


def _latest(rows: type[SQLModel], *of: ColumnElement[bool]) -> FromClause:
    """Return the row of a dated table in force at the instant `at`, as a join."""
    valid_from = getattr(rows, "valid_from")  # noqa: B009 - both dated tables have it
    columns = [valid_from, getattr(rows, "terms")]  # noqa: B009
    return (
        select(*columns)
        .where(*of, valid_from <= bindparam("at"))
        .order_by(valid_from.desc())
        .limit(1)
        .lateral()
    )


_PLAN = _latest(Plan, col(Plan.plan) == col(Customer.plan))
_OWN = _latest(CustomerTermsRow, col(CustomerTermsRow.customer_id) == col(Customer.customer_id))
# One statement, built once: every request asks for it twice.
_STANDING = (
    select(
        Customer,
        _PLAN.c.valid_from.label("plan_from"),
        _PLAN.c.terms.label("plan_terms"),
        _OWN.c.valid_from.label("own_from"),
        _OWN.c.terms.label("own_terms"),
    )
    .select_from(Customer)
    .outerjoin(_PLAN, true())
    .outerjoin(_OWN, true())
    .where(col(Customer.customer_id) == bindparam("of_customer"))
)


async def standing(tx: Transaction, customer_id: str, at: datetime) -> Standing | None:
    """Return the customer with its terms at the instant `at`, or None when there is none.

    Raises:
        pydantic.ValidationError: for terms that were edited by hand.
    """
    row = (await tx.execute(_STANDING, {"of_customer": customer_id, "at": at})).one_or_none()
    if row is None:
        return None
    customer = entity(Customer, row)
    if row.plan_from is None:
        return Standing(customer, None)
    terms = PlanTerms.read(row.plan_terms)
    if row.own_from is not None:
        terms = terms.negotiated(CustomerTerms.read(row.own_terms))
    return Standing(customer, TermsInForce(terms, customer.plan, row.plan_from, row.own_from))


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
