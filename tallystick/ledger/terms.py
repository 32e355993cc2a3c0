"""The terms a customer is charged by at an instant: its plan's row, and its own row over that.

Both rows are append-only and named by the instant they began, so a record that keeps the two
instants keeps its terms, whatever is agreed later. Which plan it is follows from the customer's
moves (`customers.MOVED`). An account that has ended is told here too: from that instant on its
customer is suspended, without anybody having to write so in time.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Row, bindparam, select, true
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import SQLModel, col

from tallystick.ledger import contents, customers
from tallystick.ledger.account_tables import BillingAccount
from tallystick.ledger.customers import MOVED
from tallystick.ledger.database import Transaction, entity
from tallystick.ledger.tables import Customer, CustomerStatus, CustomerTermsRow, Plan
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
    """A customer as it is at an instant, with its plan and status of then.

    `agreed` is None while its plan has no terms. `keeps_content` says that what is said in its
    requests is kept.
    """

    customer: Customer
    agreed: TermsInForce | None
    keeps_content: bool = False

    @property
    def spend_cap_usd(self) -> Decimal | None:
        """The customer's own spend cap, else its plan's; None is no cap."""
        own = self.customer.spend_cap_usd
        return self.agreed.terms.spend_cap_usd if own is None and self.agreed else own


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


_PLAN = _latest(Plan, col(Plan.plan) == customers.plan_then())
_OWN = _latest(CustomerTermsRow, col(CustomerTermsRow.customer_id) == col(Customer.customer_id))
_CONTENT = contents.terms_then()
_STANDING = (
    select(
        *customers.columns_then(),
        _PLAN.c.valid_from.label("plan_from"),
        _PLAN.c.terms.label("plan_terms"),
        _OWN.c.valid_from.label("own_from"),
        _OWN.c.terms.label("own_terms"),
        _CONTENT.c.days.label("content_days"),
        col(BillingAccount.cancel_at).label("ends_at"),
    )
    .select_from(Customer)
    .outerjoin(MOVED, true())
    .outerjoin(_PLAN, true())
    .outerjoin(_OWN, true())
    .outerjoin(_CONTENT, true())
    .outerjoin(BillingAccount, col(BillingAccount.customer_id) == col(Customer.customer_id))
)
# Built once: every request asks for it twice.
_STANDING_OF_ONE = _STANDING.where(col(Customer.customer_id) == bindparam("of_customer"))


async def standing(tx: Transaction, customer_id: str, at: datetime) -> Standing | None:
    """Return the customer with its terms at the instant `at`, or None when there is none.

    Raises:
        pydantic.ValidationError: for terms that were edited by hand.
    """
    of_one = {"of_customer": customer_id, "at": at}
    row = (await tx.execute(_STANDING_OF_ONE, of_one)).one_or_none()
    return _standing(row, at) if row else None


async def standings(
    tx: Transaction, customer_ids: Collection[str], at: datetime
) -> dict[str, Standing]:
    """Return what `standing` returns, of several customers at once; unknown ones are left out."""
    of_many = _STANDING.where(col(Customer.customer_id).in_(customer_ids))
    rows = await tx.execute(of_many, {"at": at})
    return {row.customer_id: _standing(row, at) for row in rows}


def _standing(row: Row[*tuple[Any, ...]], at: datetime) -> Standing:
    customer = entity(Customer, row)
    if row.ends_at is not None and row.ends_at <= at:
        customer.status = CustomerStatus.SUSPENDED
        customer.status_reason = customers.ended_words(row.ends_at)
        customer.suspended_by = "ended"
    keeps_content = row.content_days is not None
    if row.plan_from is None:
        return Standing(customer, None, keeps_content)
    terms = merged(row.plan_terms, row.own_terms)
    agreed = TermsInForce(terms, customer.plan, row.plan_from, row.own_from)
    return Standing(customer, agreed, keeps_content)


def merged(plan_terms: Mapping[str, Any], own_terms: Mapping[str, Any] | None) -> PlanTerms:
    """Return a plan's terms with a customer's own over them, both as ledger rows have them."""
    terms = PlanTerms.read(plan_terms)
    return terms if own_terms is None else terms.negotiated(CustomerTerms.read(own_terms))


async def as_recorded(
    tx: Transaction, customer_id: str, plan: str, plan_from: datetime, own_from: datetime | None
) -> PlanTerms:
    """Return the terms that a usage record was charged by, from the rows that it names."""
    row = await customers.plan_in_force(tx, plan, plan_from)
    assert row is not None  # noqa: S101 - plans are append-only
    if own_from is None:
        return merged(row.terms, None)
    own = await _own_row(tx, customer_id, own_from)
    assert own is not None  # noqa: S101 - and so are customers' own terms
    return merged(row.terms, own.terms)


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


async def base_fees_cents(tx: Transaction) -> set[int]:
    """Return every monthly base fee that a plan has or had, in cents: a price each in Stripe."""
    plans = (PlanTerms.read(row.terms) for row in await customers.plan_rows(tx))
    return {int(plan.base_fee_usd * 100) for plan in plans if plan.base_fee_usd}
