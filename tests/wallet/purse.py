"""A prepaid customer in a real ledger: ways to give, use and correct, and to look at what moved."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import select

from tallystick.contracts import RequestKey
from tallystick.ledger import accounts, adjustments, customers, movements, prepaid, terms, wallet
from tallystick.ledger.account_tables import (
    BillingAccount,
    Grant,
    GrantKind,
    Notice,
    TopUp,
    WalletEntry,
)
from tallystick.ledger.adjustments import NewAdjustment
from tallystick.ledger.customers import PlanInForce
from tallystick.ledger.database import Ledger, Transaction, entity
from tallystick.ledger.prepaid import Burnt
from tallystick.ledger.tables import Customer
from tallystick.ledger.usage import NewRecord
from tallystick.plans import PlanTerms
from tests.support.records import PLANS_BEGAN, served

ANCHOR = datetime(2026, 3, 1, tzinfo=UTC)
"""The account's periods are the calendar's months."""
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)
USD = 10**9
_numbers = itertools.count(1)


@dataclass
class Purse:
    """The customer `acme` and its wallet. Amounts are dollars, times are `NOON` if not given."""

    ledger: Ledger
    customer: str = "acme"
    plan: str = "credits"

    async def open(self, **more_terms: Any) -> "Purse":
        await add_plan(self.ledger, self.plan, {"model": "prepaid", "markup": "0", **more_terms})
        async with self.ledger.begin() as tx:
            await customers.add(
                tx, Customer(customer_id=self.customer, name=self.customer, plan=self.plan)
            )
            await accounts.open_account(tx, self.customer, ANCHOR, "UTC", ANCHOR)
        return self

    async def account(self, tx: Transaction) -> BillingAccount:
        account = await accounts.lock(tx, self.customer)
        assert account is not None
        return account

    async def give(
        self,
        usd: str | int,
        source: str,
        *,
        kind: GrantKind = GrantKind.PAID,
        at: datetime = NOON - DAY,
        **more: Any,
    ) -> bool:
        async with self.ledger.begin() as tx:
            return await wallet.grant(
                tx,
                await self.account(tx),
                kind=kind,
                nano_usd=nano(usd),
                source=source,
                at=at,
                **more,
            )

    async def use(self, usd: str | int | None, *, at: datetime = NOON) -> Burnt:
        """Record a request that was served at `at`; without a price if None."""
        return await self.record(await self.answered(usd, at=at))

    async def answered(
        self,
        usd: str | int | Decimal | None,
        *,
        at: datetime = NOON,
        key: RequestKey | None = None,
    ) -> NewRecord:
        """Serve a request; returns its record, to be written."""
        name = f"request-{next(_numbers)}"
        key = key or RequestKey(customer_id=self.customer, request_id=name)
        async with self.ledger.begin() as tx:
            return await served(tx, key, at, None if usd is None else nano(usd), plan=self.plan)

    async def record(self, new: NewRecord) -> Burnt:
        async with self.ledger.begin() as tx:
            standing = await terms.standing(tx, self.customer, new.columns["served_at"])
            assert standing is not None
            assert standing.agreed is not None
            return await prepaid.record(tx, new, standing.agreed.terms)

    async def correct(self, request_id: str, usd: str | int, book: str = "later") -> bool:
        """Book an adjustment of that many dollars."""
        async with self.ledger.begin() as tx:
            usages = adjustments.booked_usage(tx, PLANS_BEGAN, NOON + 365 * DAY, self.customer)
            (used,) = [each async for each in usages if each.key.request_id == request_id]
            return await adjustments.book(
                tx,
                NewAdjustment(
                    usage=used,
                    price_book=book,
                    reason="corrected",
                    status="priced",
                    cost_usd=Decimal(usd),
                    charge_nano_usd=nano(usd),
                    tokens=used.tokens,
                    lines=(),
                ),
            )

    async def expire(self, now: datetime) -> None:
        async with self.ledger.begin() as tx:
            await wallet.expire(tx, await self.account(tx), now)

    async def balance(self, at: datetime = NOON) -> Decimal:
        async with self.ledger.begin() as tx:
            return usd_of(await wallet.balance(tx, self.customer, at))

    async def left(self) -> dict[str, Decimal]:
        """Return what each grant has left, by its source."""
        async with self.ledger.begin() as tx:
            return {
                each.grant.source: usd_of(each.remaining_nano_usd)
                for each in await movements.given(tx, self.customer)
            }

    async def moved(self) -> list[tuple[str, str | None, Decimal]]:
        """Return all entries in the order they were written: why, of which grant, how much."""
        async with self.ledger.begin() as tx:
            sources = {row.grant_id: row.source for row in await tx.execute(select(Grant))}
        return [
            (str(row.kind), sources.get(row.grant_id), usd_of(row.amount_nano_usd))
            for row in await self.rows(WalletEntry)
        ]

    async def notices(self, kind: str) -> list[Notice]:
        return [row for row in await self.rows(Notice) if row.kind == kind]

    async def top_ups(self) -> list[TopUp]:
        return await self.rows(TopUp)

    async def rows(self, table: type[Any]) -> Any:
        """Return the customer's rows of a table, in the order of its key."""
        async with self.ledger.begin() as tx:
            statement = select(table).where(table.customer_id == self.customer)
            ordered = statement.order_by(*table.__table__.primary_key)
            return [entity(table, row) for row in await tx.execute(ordered)]

    async def adds_up(self, at: datetime = NOON) -> None:
        """Check that entries, their running totals, what is kept beside them and balance agree."""
        entries = await self.rows(WalletEntry)
        left: dict[int | None, int] = {None: 0}
        for entry in entries:
            left[entry.grant_id] = left.get(entry.grant_id, 0) + entry.amount_nano_usd
            assert entry.remaining_nano_usd == left[entry.grant_id]
        async with self.ledger.begin() as tx:
            held = await wallet.holdings(tx, self.customer)
        assert held.overdraft_nano_usd == left.pop(None) <= 0
        assert {each.grant_id: each.remaining_nano_usd for each in held.grants} == {
            grant_id: nano_usd for grant_id, nano_usd in left.items() if nano_usd
        }
        assert all(nano_usd >= 0 for nano_usd in left.values())
        assert held.burnt_nano_usd == -sum(
            entry.amount_nano_usd
            for entry in entries
            if entry.kind in ("usage", "adjustment") and entry.occurred_at >= held.period_start
        )
        expired = sum(each.remaining_nano_usd for each in held.expired(at))
        total = sum(entry.amount_nano_usd for entry in entries)
        async with self.ledger.begin() as tx:
            funds = await wallet.funds(tx, self.customer, at)
        assert held.balance_nano_usd(at) == funds.balance_nano_usd == total - expired


async def add_plan(ledger: Ledger, plan: str, agreed: Mapping[str, Any]) -> None:
    data = PlanTerms.read(agreed).model_dump(mode="json")
    async with ledger.begin() as tx:
        await customers.add_plan(tx, PlanInForce(plan, PLANS_BEGAN, data))


def nano(usd: str | int | Decimal) -> int:
    return int(Decimal(usd) * USD)


def usd_of(nano_usd: int) -> Decimal:
    return Decimal(nano_usd) / USD
