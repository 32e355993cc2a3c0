"""Short ways to set limits and to look at what is reserved under them."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import select
from sqlmodel import col

from tallystick.contracts import RequestKey
from tallystick.ledger import attempts, customers, usage
from tallystick.ledger.attempts import Begun, Completion, NewAttempt
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Outcome, Reservation, UsageRecord
from tallystick.ledger.usage import NewRecord
from tallystick.money import from_nano_usd
from tallystick.pricing import TOKEN_KINDS
from tests.support.house import House

CERTAIN: dict[str, Any] = {"max_tokens": 40}
"""The stand-in answers with 40 tokens or more, so an answer cut at 40 costs its worst case."""


async def cap(house: House, usd: Decimal | None) -> None:
    async with house.ledger.begin() as tx:
        await customers.set_spend_cap(tx, house.customer, usd)


async def reserved(ledger: Ledger) -> dict[str, Decimal]:
    """Return what is reserved, by request id."""
    async with ledger.begin() as tx:
        rows = await tx.execute(select(Reservation).order_by(col(Reservation.request_id)))
        return {row.request_id: from_nano_usd(row.amount_nano_usd) for row in rows}


async def spent(ledger: Ledger) -> list[Decimal]:
    """Return the charge of every record."""
    async with ledger.begin() as tx:
        rows = await tx.execute(select(col(UsageRecord.charge_nano_usd)))
        return [from_nano_usd(row.charge_nano_usd) for row in rows]


async def charge_at(
    ledger: Ledger,
    key: RequestKey,
    at: datetime,
    nano_usd: int | None,
    *,
    conversation_id: str | None = None,
) -> None:
    """Record a request that was served at `at`; None is usage without a price."""
    async with ledger.begin() as tx:
        new = NewAttempt(key, "f", "claude", conversation_id, 1, 1)
        begun = await attempts.begin(tx, new, at, max_unknown=5)
        assert isinstance(begun, Begun)
        await attempts.complete(tx, begun.attempt_id, Completion(Outcome.SUCCEEDED, reply={}), at)
        columns: dict[str, Any] = {
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
            "plan": "pass-through",
            "plan_valid_from": at,
            "cost_usd": None if nano_usd is None else from_nano_usd(nano_usd),
            "charge_nano_usd": nano_usd,
            "lines": [],
            "warnings": [],
        }
        await usage.record(tx, NewRecord(key, begun.attempt_id, columns, []))
