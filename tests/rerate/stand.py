"""Usage in a real ledger, recorded as production records it, and price books of another day."""

import itertools
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any

from sqlalchemy import select
from sqlmodel import col
from temporalio.testing import ActivityEnvironment

from activities.ledger import LedgerActivities
from tallystick.contracts import RecordedUsage, RecordOrder, RequestKey
from tallystick.ledger import attempts, customers, usage
from tallystick.ledger.attempts import Begun, Completion, NewAttempt
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Adjustment, Customer, MeterEvent, Outcome
from tallystick.ledger.usage import NewRecord
from tallystick.pricing import PriceBook
from tallystick.pricing.book import build_book
from tallystick.pricing.evidence import evidence

NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)
DAY = (NOON - timedelta(hours=12), NOON + timedelta(hours=12))
SONNET, UNKNOWN = "claude-sonnet-5-5", "claude-sonnet-6"
_numbers = itertools.count(1)


def another_book(change: Callable[[dict[str, Any]], None], version: str = "later") -> PriceBook:
    """Return the shipped book with a change to its data."""
    data: dict[str, Any] = {}
    for name in ("models.toml", "prices.toml", "rules.toml"):
        data |= tomllib.loads((files("tallystick.pricing") / "data" / name).read_text("utf-8"))
    change(data)
    return build_book(data | {"version": version})


def price_answers(data: dict[str, Any], usd_per_million: str) -> None:
    """Change what answers of Sonnet 5.5 cost."""
    for row in data["prices"]:
        if row["model"] == SONNET and row["kind"] == "output":
            row["usd_per_million"] = usd_per_million


def dearer_sonnet(data: dict[str, Any]) -> None:
    """Answers of Sonnet 5.5 cost $12 a million instead of $10."""
    price_answers(data, "12")


def knows_the_unknown(data: dict[str, Any]) -> None:
    """Sonnet 6 has a price: that of Sonnet 5.5."""
    (known,) = (model for model in data["models"] if model["id"] == SONNET)
    known["aliases"] = [*known.get("aliases", ()), UNKNOWN]


def reply(prompt: int = 1_000, answer: int = 100, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"msg_{next(_numbers)}",
        "type": "message",
        "role": "assistant",
        "model": SONNET,
        "content": [{"type": "text", "text": "A stick that was split in two."}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": prompt, "output_tokens": answer},
        **changes,
    }


async def add_customer(ledger: Ledger, customer_id: str, plan: str = "at-cost") -> None:
    async with ledger.begin() as tx:
        await customers.add(tx, Customer(customer_id=customer_id, name=customer_id, plan=plan))


async def serve(
    ledger: Ledger,
    message: dict[str, Any],
    *,
    customer: str = "acme",
    conversation: str | None = None,
    at: datetime = NOON,
) -> tuple[RequestKey, RecordedUsage]:
    """Answer one request and record it by the production activity."""
    key, attempt_id = await _answered(ledger, message, customer, conversation, at)
    order = RecordOrder(key=key, attempt_id=attempt_id)
    recorded = await ActivityEnvironment().run(LedgerActivities(ledger).record_usage, order)
    return key, recorded


async def left_unpriced(
    ledger: Ledger, message: dict[str, Any], *, customer: str = "acme", at: datetime = NOON
) -> RequestKey:
    """Record a reply as a price book did that did not know its model; today's may."""
    key, attempt_id = await _answered(ledger, message, customer, None, at)
    columns: dict[str, Any] = {
        **dict.fromkeys(("input_tokens", "output_tokens", "cache_read_tokens"), 0),
        **dict.fromkeys(("cache_write_5m_tokens", "cache_write_1h_tokens", "web_searches"), 0),
        **dict.fromkeys(("conversation_id", "message_id", "claude_request_id", "stop_reason")),
        **dict.fromkeys(("customer_terms_from", "cost_usd", "charge_nano_usd", "caller_metadata")),
        "input_tokens": message["usage"]["input_tokens"],
        "output_tokens": message["usage"]["output_tokens"],
        "fingerprint": "f",
        "served_at": at,
        "model": message["model"],
        "partial": False,
        "prompt_chars": 1,
        "response_chars": 1,
        "evidence": evidence(message),
        "status": "unpriced",
        "reason": "the price book does not know the model",
        "price_book": "earlier",
        "plan": "at-cost",
        "plan_valid_from": datetime(2026, 1, 1, tzinfo=UTC),
        "lines": [],
        "explanation": "",
        "warnings": [],
    }
    async with ledger.begin() as tx:
        await usage.record(tx, NewRecord(key, attempt_id, columns, []))
    return key


async def _answered(
    ledger: Ledger, message: dict[str, Any], customer: str, conversation: str | None, at: datetime
) -> tuple[RequestKey, int]:
    key = RequestKey(customer_id=customer, request_id=f"request-{next(_numbers)}")
    async with ledger.begin() as tx:
        new = NewAttempt(key, "f", message["model"], conversation, 1, 1)
        begun = await attempts.begin(tx, new, at, max_unknown=5)
        assert isinstance(begun, Begun)
        done = Completion(Outcome.SUCCEEDED, usage=message["usage"], reply=message)
        await attempts.complete(tx, begun.attempt_id, done, at)
    return key, begun.attempt_id


async def adjustments_in(ledger: Ledger) -> list[Any]:
    async with ledger.begin() as tx:
        statement = select(Adjustment).order_by(col(Adjustment.adjustment_id))
        return list(await tx.execute(statement))


async def events_of(ledger: Ledger, key: RequestKey) -> dict[str, int]:
    """Return what the request has in the outbox, by meter."""
    async with ledger.begin() as tx:
        statement = select(MeterEvent).where(col(MeterEvent.request_id) == key.request_id)
        return {row.meter: row.value for row in await tx.execute(statement)}
