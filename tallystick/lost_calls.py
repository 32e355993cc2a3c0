"""Calls that brought no answer: how many, and what they may have cost us.

No plan charges them to the customer (requirement 13), so they are ours, and they would be invisible
in sums over usage records. A call that Claude answered with an error is taken as free: such an
answer carries no usage (facts on Claude, 'Errors'). A call whose outcome nobody knows is estimated:
by what the broken stream had reported, which it cost at least, or else by the likely size of its
prompt. Only Claude's own report can say what it was; these figures are labelled as estimates
wherever they are shown, and are never part of a bill.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from tallystick.ledger import attempts
from tallystick.ledger.database import Transaction
from tallystick.ledger.tables import Attempt
from tallystick.pricing import estimate_cost, rate


@dataclass(slots=True)
class LostCalls:
    """A customer's calls that failed or whose outcome is unknown; calls in flight are neither.

    `estimated_cost_usd` is what those of unknown outcome may have cost us, at Claude's prices.
    """

    failed: int = 0
    unknown: int = 0
    estimated_cost_usd: Decimal = Decimal(0)


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
