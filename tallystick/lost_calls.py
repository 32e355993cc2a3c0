"""Calls that brought no answer: how many, and what they may have cost us.

No plan charges them to the customer (requirement 13), so they are ours, and they would be invisible
in sums over usage records. A call that Claude answered with an error is taken as free: such an
answer carries no usage (facts on Claude, 'Errors'). What a call of unknown outcome has cost is told
by Claude's own report, once reconciliation has settled it. Until then it is estimated: by what the
broken stream had reported, which it cost at least, or else by the likely size of its prompt.
Estimates are labelled so wherever they are shown, and neither figure is ever part of a bill.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from tallystick.ledger import attempt_settlements, attempts
from tallystick.ledger.database import Transaction
from tallystick.ledger.tables import Attempt
from tallystick.pricing import estimate_cost, rate


@dataclass(slots=True)
class LostCalls:
    """A customer's calls that failed or whose outcome is unknown; calls in flight are neither.

    `estimated_cost_usd` is what the `unknown` may have cost us, at Claude's prices. What the
    `settled` have cost is known by Claude's report, nothing for those that were not served.
    """

    failed: int = 0
    unknown: int = 0
    estimated_cost_usd: Decimal = Decimal(0)
    settled: int = 0
    settled_cost_usd: Decimal = Decimal(0)


async def lost_calls(
    tx: Transaction,
    customer_id: str | None = None,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
) -> dict[str, LostCalls]:
    """Return the lost calls of each customer that has some, by customer id.

    Of all times, or of calls begun in [start, end).
    """
    lost: dict[str, LostCalls] = {}
    for customer, failed in await attempts.count_failed(tx, customer_id, start=start, end=end):
        lost[customer] = LostCalls(failed=failed)
    for row in await attempt_settlements.by_customer(tx, customer_id, start=start, end=end):
        calls = lost.setdefault(row.customer_id, LostCalls())
        calls.settled, calls.settled_cost_usd = row.settled, Decimal(row.cost)
    async for attempt in attempts.indeterminate(tx, customer_id, start=start, end=end):
        calls = lost.setdefault(attempt.customer_id, LostCalls())
        calls.unknown += 1
        calls.estimated_cost_usd += estimated_cost(attempt)
    return lost


def estimated_cost(attempt: Attempt) -> Decimal:
    """Return what a call of unknown outcome may have cost us, at Claude's prices."""
    model, at = attempt.model, attempt.started_at
    if attempt.usage is not None:
        seen: dict[str, Any] = {
            "model": model, "usage": attempt.usage, "content": [], "stop_reason": None,
        }  # fmt: skip
        at_least = rate(seen, at=at).at_least_usd
        if at_least is not None:
            return at_least
    return estimate_cost(model, attempt.estimated_input_tokens, 0, at)
