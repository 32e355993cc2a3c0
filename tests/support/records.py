"""Usage of a stated charge, without a call: for tests of what follows from a charge."""

from datetime import UTC, datetime
from typing import Any

from tallystick.contracts import RequestKey
from tallystick.ledger import attempts
from tallystick.ledger.attempts import Begun, Completion, NewAttempt
from tallystick.ledger.database import Transaction
from tallystick.ledger.tables import Outcome
from tallystick.ledger.usage import NewRecord
from tallystick.money import from_nano_usd
from tallystick.pricing import TOKEN_KINDS

PLANS_BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


async def served(
    tx: Transaction,
    key: RequestKey,
    at: datetime,
    nano_usd: int | None,
    *,
    plan: str = "pass-through",
    conversation_id: str | None = None,
    **columns: Any,
) -> NewRecord:
    """Finish an attempt at `at` and return its record to be written; None is without a price."""
    new = NewAttempt(key, "f", "claude", conversation_id, 1, 1)
    begun = await attempts.begin(tx, new, at, max_unknown=5)
    assert isinstance(begun, Begun)
    await attempts.complete(tx, begun.attempt_id, Completion(Outcome.SUCCEEDED, reply={}), at)
    columns = {
        **dict.fromkeys(("fingerprint", "model", "reason", "price_book", "explanation"), ""),
        **dict.fromkeys(("prompt_chars", "response_chars", "web_searches"), 0),
        **{f"{kind}_tokens": 0 for kind in TOKEN_KINDS},
        **dict.fromkeys(("message_id", "claude_request_id", "stop_reason", "caller_metadata")),
        "customer_terms_from": None,
        "conversation_id": conversation_id,
        "served_at": at,
        "partial": False,
        "evidence": {},
        "status": "unpriced" if nano_usd is None else "priced",
        "plan": plan,
        "plan_valid_from": max(at, PLANS_BEGAN),
        "cost_usd": None if nano_usd is None else from_nano_usd(nano_usd),
        "charge_nano_usd": nano_usd,
        "lines": [],
        "warnings": [],
        **columns,
    }
    return NewRecord(key, begun.attempt_id, columns, [])
