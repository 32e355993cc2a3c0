"""Short ways to set limits and to look at what is reserved under them."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import select
from sqlmodel import col

from tallystick.contracts import RequestKey
from tallystick.ledger import customers, usage
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Reservation, UsageRecord
from tallystick.money import from_nano_usd
from tests.support.house import House
from tests.support.records import served

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
        new = await served(tx, key, at, nano_usd, conversation_id=conversation_id)
        await usage.record(tx, new)
