"""Plans over time: the moves of a customer, and the terms that were in force over a span.

A move is a row that is only ever added. The latest decision that has taken effect holds
(`customers.MOVED`), so deciding anew replaces a move that is still to come, and nothing that has
passed changes: moves take effect when they are decided or later, and closing a period takes the
lock that deciding takes (`accounts.lock`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from tallystick.ledger import customers, terms
from tallystick.ledger.account_tables import PlanMove
from tallystick.ledger.customers import PlanInForce
from tallystick.ledger.database import Transaction, entity
from tallystick.ledger.tables import CustomerTermsRow
from tallystick.ledger.terms import TermsInForce


@dataclass(frozen=True, slots=True)
class Segment:
    """From `start` on, until before `end`, under the same rows of plan and own terms."""

    start: datetime
    end: datetime
    agreed: TermsInForce


async def add(tx: Transaction, customer_id: str, plan: str, valid_from: datetime) -> None:
    """Decide that the customer is on `plan` from an instant on, which must not have passed.

    The caller holds the account's lock, and has asked `tallystick.plans.moves` when it takes
    effect.
    """
    await tx.execute(
        insert(PlanMove).values(customer_id=customer_id, plan=plan, valid_from=valid_from)
    )


async def list_all(tx: Transaction, customer_id: str) -> Sequence[PlanMove]:
    """Return the customer's moves in the order they were decided."""
    statement = (
        select(PlanMove)
        .where(col(PlanMove.customer_id) == customer_id)
        .order_by(col(PlanMove.plan_move_id))
    )
    return [entity(PlanMove, row) for row in await tx.execute(statement)]


async def to_come(tx: Transaction, customer_id: str, at: datetime) -> PlanMove | None:
    """Return the move that is decided and has not taken effect at the instant `at`, if any."""
    moves = await list_all(tx, customer_id)
    return moves[-1] if moves and moves[-1].valid_from > at else None


async def segments(
    tx: Transaction, customer_id: str, start: datetime, end: datetime
) -> list[Segment]:
    """Return the terms in force over [start, end), in order, split wherever a row of them changes.

    That is where the customer moves to another plan, and where a new dated row of its plan or of
    its own terms begins. What lies before the plan had any terms is left out.

    Raises:
        pydantic.ValidationError: for terms that were edited by hand.
    """
    customer = await customers.get(tx, customer_id)
    assert customer is not None  # noqa: S101 - it has an account
    moves = await list_all(tx, customer_id)
    plans = await customers.plan_rows(tx, {customer.plan, *(move.plan for move in moves)})
    own = await terms.list_own(tx, customer_id)

    def in_force(at: datetime) -> TermsInForce | None:
        plan = next((move.plan for move in reversed(moves) if move.valid_from <= at), customer.plan)
        row = _last([each for each in plans if each.plan == plan], at)
        if row is None:
            return None
        mine = _last(own, at)
        return TermsInForce(
            terms=terms.merged(row.terms, mine.terms if mine else None),
            plan=plan,
            plan_from=row.valid_from,
            own_from=mine.valid_from if mine else None,
        )

    changes = {each.valid_from for each in (*moves, *plans, *own) if start < each.valid_from < end}
    found: list[Segment] = []
    for begins, ends in pairwise([start, *sorted(changes), end]):
        agreed = in_force(begins)
        if agreed is None:
            continue
        if found and found[-1].agreed == agreed and found[-1].end == begins:
            begins = found.pop().start  # noqa: PLW2901 - the change was to another plan's row
        found.append(Segment(begins, ends, agreed))
    return found


_Row = TypeVar("_Row", PlanInForce, CustomerTermsRow)


def _last(rows: Sequence[_Row], at: datetime) -> _Row | None:
    """Return the row in force at an instant; `rows` are ordered by theirs."""
    return next((row for row in reversed(rows) if row.valid_from <= at), None)
