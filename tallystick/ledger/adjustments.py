"""Adjustments: how a booked price is corrected without touching the record that holds it.

`book` writes an adjustment and, where it brings a record its first price, the record's meter events
in the same transaction: there is no moment at which usage is priced but not queued for Stripe. What
a wallet has paid for moves the wallet in that transaction too. A difference is right only against
what holds when it is booked, so runs that book do so one after the other (`one_at_a_time`), and the
unique key (record, price book) refuses the same correction twice.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from tallystick.contracts import BillLine, MeterOrder, RequestKey
from tallystick.ledger import accounts, outbox, prepaid, terms
from tallystick.ledger.account_tables import BillingAccount
from tallystick.ledger.database import Transaction
from tallystick.ledger.effective import effective
from tallystick.ledger.tables import Adjustment, MeterEvent, UsageRecord
from tallystick.metering import meter_values
from tallystick.pricing import TOKEN_KINDS, TokenCounts, TokenKind


@dataclass(frozen=True, slots=True)
class BookedUsage:
    """A usage record as it holds now, with what a price is worked out from again.

    `cost_usd` and `charge_nano_usd` are None while it has no price.
    """

    usage_record_id: int
    key: RequestKey
    served_at: datetime
    model: str
    evidence: dict[str, Any]
    plan: str
    plan_from: datetime
    own_terms_from: datetime | None
    status: str
    price_book: str
    tokens: TokenCounts
    cost_usd: Decimal | None
    charge_nano_usd: int | None


@dataclass(frozen=True, slots=True)
class NewAdjustment:
    """Differences to add to a record, and the status and lines that it then has."""

    usage: BookedUsage
    price_book: str
    reason: str
    status: str
    cost_usd: Decimal
    charge_nano_usd: int
    tokens: TokenCounts
    lines: Sequence[BillLine]

    @property
    def first_price(self) -> bool:
        """Whether the record had no price before, so that nothing of it has been metered."""
        return self.usage.cost_usd is None


_BOOKING = 7461793
"""Names the lock; the number means nothing, but must stay what it is."""


async def one_at_a_time(tx: Transaction) -> None:
    """Wait until nobody else books adjustments, and keep others waiting until this ends."""
    await tx.execute(select(func.pg_advisory_xact_lock(_BOOKING)))


async def booked_usage(
    tx: Transaction, start: datetime, end: datetime, customer_id: str | None = None
) -> AsyncGenerator[BookedUsage, None]:
    """Yield what was served in [start, end), in the order it was recorded, streamed."""
    usage = effective()
    statement = (
        select(usage)
        .where(usage.c.served_at >= start, usage.c.served_at < end)
        .order_by(usage.c.usage_record_id)
    )
    if customer_id is not None:
        statement = statement.where(usage.c.customer_id == customer_id)
    async for row in await tx.stream(statement):
        yield BookedUsage(
            usage_record_id=row.usage_record_id,
            key=RequestKey(customer_id=row.customer_id, request_id=row.request_id),
            served_at=row.served_at,
            model=row.model,
            evidence=row.evidence,
            plan=row.plan,
            plan_from=row.plan_valid_from,
            own_terms_from=row.customer_terms_from,
            status=row.status,
            price_book=row.price_book,
            tokens=counts(row),
            cost_usd=row.cost_usd,
            charge_nano_usd=None if row.charge_nano_usd is None else int(row.charge_nano_usd),
        )


def counts(row: Any) -> TokenCounts:
    """Return the quantities of a row of usage."""
    tokens = {kind.value: int(getattr(row, f"{kind}_tokens")) for kind in TOKEN_KINDS}
    return TokenCounts(**tokens, web_search=int(row.web_searches))


async def book(tx: Transaction, new: NewAdjustment) -> bool:
    """Add the adjustment; a first price queues the record's meter events with it.

    Returns False, and changes nothing, where this price book has adjusted the record before.
    """
    usage, by_kind = new.usage, new.tokens.by_kind()
    paid_from = await _wallet(tx, usage)
    account = accounts.share_lock(literal(usage.key.customer_id))
    statement = (
        insert(Adjustment)
        .values(
            usage_record_id=usage.usage_record_id,
            customer_id=usage.key.customer_id,
            billed_at=accounts.billed_at(func.now(), account),
            price_book=new.price_book,
            reason=new.reason,
            status=new.status,
            cost_usd=new.cost_usd,
            charge_nano_usd=new.charge_nano_usd,
            **{f"{kind}_tokens": by_kind[kind] for kind in TOKEN_KINDS},
            web_searches=by_kind[TokenKind.WEB_SEARCH],
            lines=[line.model_dump(mode="json") for line in new.lines],
        )
        .on_conflict_do_nothing(index_elements=["usage_record_id", "price_book"])
        .returning(col(Adjustment.adjustment_id), col(Adjustment.billed_at))
    )
    booked = (await tx.execute(statement)).one_or_none()
    if booked is None:
        return False
    if paid_from is not None:
        await prepaid.adjust(
            tx, paid_from, booked.adjustment_id, new.charge_nano_usd, booked.billed_at
        )
    if new.first_price:
        tokens = usage.tokens.plus(new.tokens).by_kind()
        await outbox.enqueue(
            tx,
            usage_record_id=usage.usage_record_id,
            key=usage.key,
            occurred_at=usage.served_at,
            billed_at=booked.billed_at,
            values=meter_values(new.charge_nano_usd, tokens),
        )
    return True


async def _wallet(tx: Transaction, usage: BookedUsage) -> BillingAccount | None:
    """Return the account whose wallet paid for the usage, locked; None where none did.

    By the plan that the usage was charged by: what a wallet has paid it also corrects, whatever
    plan the customer is on by now.
    """
    customer_id = usage.key.customer_id
    terms_then = await terms.as_recorded(
        tx, customer_id, usage.plan, usage.plan_from, usage.own_terms_from
    )
    return await accounts.lock(tx, customer_id) if terms_then.model == "prepaid" else None


async def unmetered(
    tx: Transaction, start: datetime, end: datetime, customer_id: str | None = None
) -> list[MeterOrder]:
    """Return what first prices of usage served in [start, end) have left in the outbox so far."""
    statement = (
        select(
            col(MeterEvent.customer_id), col(MeterEvent.request_id), func.count().label("events")
        )
        .join(UsageRecord, col(UsageRecord.usage_record_id) == col(MeterEvent.usage_record_id))
        .where(
            col(UsageRecord.cost_usd).is_(None),
            col(UsageRecord.served_at) >= start,
            col(UsageRecord.served_at) < end,
            col(MeterEvent.delivered_at).is_(None),
            col(MeterEvent.withdrawn_at).is_(None),
        )
        .group_by(col(MeterEvent.customer_id), col(MeterEvent.request_id))
        .order_by(col(MeterEvent.customer_id), col(MeterEvent.request_id))
    )
    if customer_id is not None:
        statement = statement.where(col(MeterEvent.customer_id) == customer_id)
    return [
        MeterOrder(
            key=RequestKey(customer_id=row.customer_id, request_id=row.request_id),
            events=row.events,
        )
        for row in await tx.execute(statement)
    ]
