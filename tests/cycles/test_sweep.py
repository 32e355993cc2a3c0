"""The sweep: one run of it by the production worker, as its schedule starts it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest_asyncio
from temporalio.client import Client as TemporalClient
from temporalio.client import ScheduleActionExecutionStartWorkflow, ScheduleHandle

from tallystick.contracts import PayloadPart
from tallystick.ledger import customers, inbox, notices, payloads
from tallystick.ledger.database import Ledger
from tallystick.metering import CHARGE_METER, meter_identifier
from tallystick.stripe_events import Envelope, Form, read_event
from tests.support.house import PATIENCE, House, open_house
from tests.support.schedules import paused_schedules
from workflows.sweep import STEPS


@pytest_asyncio.fixture
async def paused(temporal: TemporalClient) -> AsyncIterator[ScheduleHandle]:
    """The schedule, paused; it ends with the test, and so do those that are set up beside it."""
    async with paused_schedules(temporal) as schedules:
        yield schedules["sweep"]


async def test_a_triggered_sweep_finds_something_in_every_step(
    temporal: TemporalClient, paused: ScheduleHandle, database_url: str
) -> None:
    async with open_house(temporal, database_url, "acme") as house:
        await _leave_something_for_every_step(house)
        await paused.trigger()
        found = await _swept(temporal, paused)
        # Stripe's list has whatever happened there; each of the others has its one thing.
        listed = found["backfill_events"]
        assert isinstance(listed, int)
        assert listed > 0
        assert found == {**dict.fromkeys(STEPS, 1), "backfill_events": listed}
        await _all_is_told(house.ledger)


async def _leave_something_for_every_step(house: House) -> None:
    # Usage that fills a spend cap, and of which Stripe rejects one event that it had taken.
    rejected = meter_identifier(house.customer, "one", CHARGE_METER)
    await house.stripe.order("rejected_later", code="archived_meter", identifier=rejected)
    charge = (await house.ask("one")).bill.charge_usd
    await house.done("one")
    (report,) = (await house.stripe.get("error_reports"))["error_reports"]
    now = datetime.now(UTC)
    async with house.ledger.begin() as tx:
        await customers.set_spend_cap(tx, house.customer, charge)
        acme = await customers.get(tx, house.customer)
        assert acme is not None
        # Both were delivered while Temporal was away.
        new_card = Envelope(
            "evt_card", "customer.updated", Form.SNAPSHOT, now,
            stripe_customer_id=acme.stripe_customer_id,
        )  # fmt: skip
        await inbox.receive(tx, [read_event(report), new_card], now)
        # A payload of a workflow that Temporal has forgotten.
        part = PayloadPart(workflow_id="claude-request/acme/forgotten", digest="d", part=0)
        await payloads.keep(tx, part, b"x")
        await payloads.still_needed(tx, part.workflow_id, now - timedelta(days=400))
        # What else has happened at Stripe was not.
        await inbox.note_read(tx, Form.SNAPSHOT, now - timedelta(hours=2))


async def _swept(temporal: TemporalClient, schedule: ScheduleHandle) -> dict[str, int | str]:
    """Wait for the run that was triggered; returns what it found."""
    async with asyncio.timeout(PATIENCE):
        while not (actions := (await schedule.describe()).info.recent_actions):
            await asyncio.sleep(0.05)
        started = cast("ScheduleActionExecutionStartWorkflow", actions[-1].action)
        run = temporal.get_workflow_handle(started.workflow_id, result_type=dict[str, int | str])
        return await run.result()


async def _all_is_told(ledger: Ledger) -> None:
    """Wait until customer and operators have been told of it all: the sweep has woken the cycle."""
    async with asyncio.timeout(PATIENCE):
        while True:
            async with ledger.begin() as tx:
                left = [*await notices.waiting(tx, "acme"), *await notices.waiting(tx, None)]
                waiting = (await inbox.depth(tx)).waiting
            if not left and not waiting:
                return
            await asyncio.sleep(0.05)
