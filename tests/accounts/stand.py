"""Accounts in a real ledger, and usage of any instant, recorded over connections of its own."""

import asyncio
import itertools
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select, text
from sqlmodel import col

from tallystick.contracts import RequestKey, StepOrder
from tallystick.ledger import accounts, attempts, customers, usage
from tallystick.ledger.account_tables import BillingAccount
from tallystick.ledger.attempts import Begun, Completion, NewAttempt
from tallystick.ledger.database import Ledger, Transaction
from tallystick.ledger.tables import Customer, Outcome, UsageRecord
from tallystick.ledger.usage import NewRecord

PATIENCE = 60
CUSTOMER = "acme"
ANCHOR = datetime(2026, 1, 31, tzinfo=UTC)
"""Periods end on 28 February, 31 March, 30 April ..."""
FEBRUARY, MARCH, APRIL = (
    datetime(2026, 2, 28, tzinfo=UTC),
    datetime(2026, 3, 31, tzinfo=UTC),
    datetime(2026, 4, 30, tzinfo=UTC),
)
_numbers = itertools.count(1)


async def open_account(
    ledger: Ledger, plan: str = "pass-through", time_zone: str = "UTC", anchor: datetime = ANCHOR
) -> BillingAccount:
    async with ledger.begin() as tx:
        row = Customer(customer_id=CUSTOMER, name="Acme", plan=plan, time_zone=time_zone)
        await customers.add(tx, row)
        return await accounts.open_account(tx, CUSTOMER, anchor, time_zone, anchor)


async def account_of(ledger: Ledger) -> BillingAccount:
    async with ledger.begin() as tx:
        account = await accounts.get(tx, CUSTOMER)
    assert account is not None
    return account


def order(now: datetime, subject: int | str = "") -> StepOrder:
    return StepOrder(customer_id=CUSTOMER, subject=str(subject), now=now)


async def calls(ledger: Ledger, at: datetime) -> tuple[RequestKey, int]:
    """Begin a call to Claude; returns its request and attempt."""
    key = RequestKey(customer_id=CUSTOMER, request_id=f"r-{next(_numbers)}")
    async with ledger.begin() as tx:
        begun = await attempts.begin_first(tx, NewAttempt(key, "f", "m", None, 1, 1), at)
    assert isinstance(begun, Begun)
    return key, begun.attempt_id


async def answered(ledger: Ledger, at: datetime) -> NewRecord:
    """Let a call end; returns the record that it comes to, of one nano-dollar."""
    key, attempt_id = await calls(ledger, at)
    async with ledger.begin() as tx:
        await attempts.complete(tx, attempt_id, Completion(Outcome.SUCCEEDED, reply={}), at)
    nothing = ("conversation_id", "message_id", "claude_request_id", "stop_reason")
    columns: dict[str, Any] = {
        **dict.fromkeys((*nothing, "customer_terms_from", "caller_metadata")),
        **dict.fromkeys(("input_tokens", "output_tokens", "cache_read_tokens"), 0),
        **dict.fromkeys(("cache_write_5m_tokens", "cache_write_1h_tokens", "web_searches"), 0),
        **dict.fromkeys(("fingerprint", "model", "price_book", "explanation", "reason"), "x"),
        **dict.fromkeys(("prompt_chars", "response_chars"), 1),
        "served_at": at,
        "partial": False,
        "evidence": {},
        "status": "priced",
        "plan": "pass-through",
        "plan_valid_from": ANCHOR,
        "cost_usd": 0,
        "charge_nano_usd": 1,
        "lines": [],
        "warnings": [],
    }
    return NewRecord(key, attempt_id, columns, [])


async def record(ledger: Ledger, at: datetime) -> datetime:
    """Record usage of an instant; returns in which period it is billed."""
    new = await answered(ledger, at)
    async with ledger.each() as tx:
        return (await usage.record(tx, new)).record.billed_at


async def billed(ledger: Ledger, start: datetime | None, end: datetime | None) -> set[str]:
    """Return the requests that are billed in a period, as a statement would find them."""
    bounds = [col(UsageRecord.billed_at) >= start] if start else []
    bounds += [col(UsageRecord.billed_at) < end] if end else []
    async with ledger.begin() as tx:
        return set(await tx.scalars(select(col(UsageRecord.request_id)).where(*bounds)))


async def someone_waits(ledger: Ledger) -> None:
    """Wait until a statement in this database waits for a lock."""
    statement = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(PATIENCE), ledger.each() as tx:
        while not (await tx.execute(statement)).scalar_one():
            await asyncio.sleep(0.01)


async def close(tx: Transaction, end: datetime) -> None:
    assert await accounts.close_until(tx, CUSTOMER, end)
