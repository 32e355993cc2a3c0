"""What calls of unknown outcome turned out to be, by Anthropic's report: our cost, charged to nobody.

A settlement is added once for each attempt and never changed. It holds as long as the attempt's own
outcome is unknown; an answer that turns up after all says more, and holds instead.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tallystick.ledger.database import Transaction


async def settle(
    tx: Transaction,
    *,
    reconciliation_id: int,
    discrepancy_id: int,
    subject: str,
    facts: Mapping[str, Any],
    at: datetime,
) -> int:
    """Book what a proposal `settle_attempts` says of one of its subjects; returns how many attempts.

    A subject is an attempt, or a number of items of one lost batch; `facts` are the proposal's.
    Repeating it does nothing, and so it does for an attempt whose outcome is known by now: 0.
    """
    raise NotImplementedError
