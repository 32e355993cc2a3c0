"""What was never delivered is found in Stripe's own lists, once, and however long ago."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from sqlalchemy import select
from sqlmodel import col
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.event_backfill import EventBackfillActivities
from tallystick.ledger import accounts, customers, inbox
from tallystick.ledger.account_tables import StripeEvent
from tallystick.ledger.database import Ledger, entity
from tallystick.ledger.tables import Customer
from tallystick.stripe_events import METER_REPORTS, read_event
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


_ALL = select(StripeEvent).order_by(col(StripeEvent.created_at), col(StripeEvent.event_id))


async def test_events_that_were_never_delivered_are_found_once_each(archive: Archive) -> None:
    await archive.shop.stand.control("POST", "disturbances", drop=True)
    customer = await archive.shop.customer("visa")
    await archive.later(9 * DAY)
    await archive.shop.invoice(customer, 100)
    await archive.later(HOUR)
    made = await archive.shop.events("*")
    async with archive.ledger.begin() as tx:  # this one was delivered
        await inbox.receive(tx, [read_event(made[0].to_dict())], archive.now())

    assert await archive.backfill() == len(made) - 1
    found = await archive.events()
    assert {event.event_id for event in found} == {event.id for event in made}
    assert {event.form for event in found} == {"snapshot"}
    await archive.later(HOUR)
    assert await archive.backfill() == 0


async def test_a_long_list_is_read_to_its_end(archive: Archive) -> None:
    customer = await archive.shop.customer(None)
    for kind in ("twice", "thrice"):
        await archive.shop.stand.control(
            "POST", "events", type=f"customer.{kind}", kind="customer", id=customer, times=130
        )
    await archive.later(HOUR)
    assert await archive.backfill() == len(await archive.events()) > 260


async def test_the_lists_are_asked_once_an_hour_and_read_on_from_where_they_ended(
    archive: Archive,
) -> None:
    assert await archive.backfill() == 0  # the account has just been opened
    assert await archive.calls() == 0
    await archive.later(3 * DAY)
    await archive.backfill()
    first = await archive.calls()
    assert first == 4  # 72 hours and the hour before, a day at a time
    await archive.later(HOUR / 2)
    await archive.backfill()
    assert await archive.calls() == first
    await archive.later(HOUR / 2)
    await archive.backfill()
    assert await archive.calls() == first + 1


async def test_an_outage_of_stripe_costs_nothing_of_what_was_read(archive: Archive) -> None:
    opened = archive.now()
    customer = await archive.shop.customer("visa")
    await archive.later(2 * DAY)
    await archive.shop.invoice(customer, 100)
    await archive.later(HOUR)
    second_day = int((opened - HOUR + DAY).timestamp())
    await archive.shop.stand.fault("unavailable", match=f"[gte]={second_day}")
    with pytest.raises(ApplicationError) as caught:
        await archive.backfill()
    assert caught.value.type == "StripeUnavailable"
    first = len(await archive.events())
    calls = await archive.calls()
    assert first > 0
    made = await archive.shop.events("*")
    assert await archive.backfill() == len(made) - first
    assert await archive.calls() - calls == 2 + 1  # the two days that were left; and our own look


async def test_reports_on_meters_come_from_the_list_of_thin_events(archive: Archive) -> None:
    customer = await archive.shop.customer(None)
    await archive.shop.stand.fault("rejected_later", code="archived_meter")
    await archive.shop.use(customer, 5)
    await archive.later(2 * HOUR)
    await archive.backfill()
    (thin,) = [event for event in await archive.events() if event.form == "thin"]
    assert (thin.type, thin.applied_at) == (METER_REPORTS[0], None)
