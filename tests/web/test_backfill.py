"""What was never delivered is found in Stripe's own lists, once, and however long ago."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest_asyncio
from temporalio.testing import ActivityEnvironment

from activities.event_backfill import EventBackfillActivities
from tallystick.ledger import accounts, customers, inbox
from tallystick.ledger.account_tables import StripeEvent
from tallystick.ledger.database import Ledger, entity
from tallystick.ledger.tables import Customer
from tests.sandbox.stripe_billing import Business, business

OPENED = "2026-01-01T00:00:00"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LISTS = "GET /v1/events"


class Archive:
    """Stripe's lists, our inbox, and the activity between them on Stripe's own clock."""

    def __init__(self, shop: Business, ledger: Ledger):
        self.shop, self.ledger = shop, ledger
        self._backfill = EventBackfillActivities(ledger, shop.stand.client(), self.now)

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.shop.stand.account.clock(), UTC)

    async def later(self, time: timedelta) -> None:
        await self.shop.stand.control("POST", "clock", advance=time.total_seconds())

    async def backfill(self) -> int:
        return await ActivityEnvironment().run(self._backfill.backfill_events)

    async def events(self) -> list[StripeEvent]:
        async with self.ledger.begin() as tx:
            return [entity(StripeEvent, row) for row in await tx.execute(_ALL)]

    async def calls(self) -> int:
        return (await self.shop.stand.totals())["calls"].get(LISTS, 0)


@pytest_asyncio.fixture
async def archive(ledger: Ledger) -> AsyncIterator[Archive]:
    async with business(OPENED) as shop:
        made = Archive(shop, ledger)
        async with ledger.begin() as tx:
            await customers.add(tx, Customer(customer_id="acme", name="Acme", plan="pass-through"))
            await accounts.open_account(tx, "acme", made.now(), "UTC", made.now())
        yield made
