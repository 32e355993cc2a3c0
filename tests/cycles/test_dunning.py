"""From a failed payment to suspension and back, by a real cycle whose clock is moved on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert, update
from sqlmodel import col
from temporalio import activity
from temporalio.client import Client as TemporalClient
from temporalio.worker import Worker

from activities.agenda import AgendaActivities
from activities.dunning import DunningActivities
from activities.notices import NoticeActivities
from activities.waking import wake
from tallystick.contracts import TASK_QUEUE, News, StepOrder, StepResult, cycle_workflow_id
from tallystick.ledger import customers
from tallystick.ledger.account_tables import Invoice, Notice
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Customer, CustomerStatus
from tallystick.sandbox.virtual_time import VirtualTime
from workers.plugin import TallystickPlugin

# Friday evening in Berlin, far enough ahead that no clock of the test has passed it.
FRIDAY_EVENING = datetime(2027, 3, 5, 18, 30, tzinfo=UTC)
MONDAY_EVENING = datetime(2027, 3, 8, 18, 30, tzinfo=UTC)


class Told:
    """A notifier that keeps what it was told."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []

    async def tell(self, notice: Notice) -> None:
        self.notices.append(notice)

    @property
    def kinds(self) -> list[str]:
        return [notice.kind for notice in self.notices]


@activity.defn
async def look_at_invoices(order: StepOrder) -> StepResult:
    """Nothing new at Stripe: this test is about what the ledger knows."""
    return StepResult()


@asynccontextmanager
async def _cycle(
    temporal: TemporalClient, ledger: Ledger, told: Told
) -> AsyncIterator[VirtualTime]:
    async with ledger.begin() as tx:
        await customers.add(
            tx,
            Customer(
                customer_id="acme", name="Acme", plan="pass-through", time_zone="Europe/Berlin"
            ),
        )
    dunning = DunningActivities(ledger)
    steps: list[Any] = [
        AgendaActivities(ledger).read_agenda,
        NoticeActivities(ledger, told).send_notices,
        dunning.start_grace,
        dunning.remind_of_payment,
        dunning.suspend_service,
        dunning.restore_service,
        look_at_invoices,
    ]
    async with Worker(
        temporal, task_queue=TASK_QUEUE, activities=steps, plugins=[TallystickPlugin()]
    ):
        await wake(temporal, "acme", News())
        yield VirtualTime(temporal, None, ["acme"])
        await temporal.get_workflow_handle(cycle_workflow_id("acme")).terminate()


async def _failed_invoice(ledger: Ledger) -> None:
    async with ledger.begin() as tx:
        await tx.execute(
            insert(Invoice).values(
                stripe_invoice_id="in_1",
                customer_id="acme",
                purpose="period",
                status="open",
                currency="usd",
                total_cents=12_345,
                tax_cents=0,
                amount_due_cents=12_345,
                amount_paid_cents=0,
                attempt_count=1,
                created_at=FRIDAY_EVENING,
                failed_at=FRIDAY_EVENING,
                failure="the card has expired",
                # Looked at only after all this, so that the daily look does not come between.
                checked_at=FRIDAY_EVENING + timedelta(days=30),
            )
        )


async def _standing(ledger: Ledger) -> tuple[CustomerStatus, str | None]:
    async with ledger.begin() as tx:
        customer = await customers.get(tx, "acme")
    assert customer is not None
    return CustomerStatus(customer.status), customer.status_reason


async def test_a_failure_on_friday_evening_stops_service_on_monday_evening_until_it_is_paid(
    virtual_temporal: TemporalClient, ledger: Ledger
) -> None:
    told = Told()
    async with _cycle(virtual_temporal, ledger, told) as time:
        await _failed_invoice(ledger)
        await wake(virtual_temporal, "acme", News())
        await time.to(FRIDAY_EVENING + timedelta(minutes=1))
        assert told.kinds == ["grace_started"]
        assert "$123.45" in told.notices[0].message
        assert "the card has expired" in told.notices[0].message
        assert "Monday, 08 March 2027, 19:30 CET" in told.notices[0].message

        await time.to(MONDAY_EVENING - timedelta(minutes=1))
        assert told.kinds == ["grace_started", "payment_reminder", "payment_reminder"]
        assert await _standing(ledger) == (CustomerStatus.ACTIVE, None)
        (suspend, *_) = (await time.agenda("acme")).dues
        assert (suspend.kind, suspend.at) == ("suspend", MONDAY_EVENING)

        await time.to(MONDAY_EVENING + timedelta(minutes=1))
        assert told.kinds[3:] == ["service_suspended"]
        status, reason = await _standing(ledger)
        assert status == CustomerStatus.SUSPENDED
        assert reason is not None
        assert "in_1 was not paid" in reason

        async with ledger.begin() as tx:
            await tx.execute(
                update(Invoice)
                .where(col(Invoice.stripe_invoice_id) == "in_1")
                .values(status="paid", amount_paid_cents=12_345)
            )
        await wake(virtual_temporal, "acme", News())
        await time.settle()
        assert await _standing(ledger) == (CustomerStatus.ACTIVE, None)
        assert told.kinds[4:] == ["service_restored"]
        assert (await time.agenda("acme")).dues == ()
