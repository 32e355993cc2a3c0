"""Usage that Stripe took, acknowledged and rejected later is parked, shown, and told once."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest_asyncio
from sqlalchemy import select
from temporalio.testing import ActivityEnvironment

from activities.meter_reports import MeterReportActivities
from tallystick.ledger import inbox, notices, outbox, waiting
from tallystick.ledger.account_tables import MeterRejection
from tallystick.ledger.database import Ledger
from tallystick.metering import meter_identifier
from tallystick.stripe_events import METER_REPORTS, read_event
from tests.metering.stand import INPUT, MeteringStand, metering_stand


@pytest_asyncio.fixture
async def stand(ledger: Ledger) -> AsyncIterator[MeteringStand]:
    async with metering_stand(ledger, "stream") as made:
        yield made


async def _receive(stand: MeteringStand) -> int:
    """Put Stripe's reports into the inbox, as a webhook does; returns how many are new."""
    listed = await stand.stripe.client().v2.core.events.list_async({"types": [METER_REPORTS[0]]})
    async with stand.ledger.begin() as tx:
        events = [read_event(event.to_dict()) for event in listed.data]
        return await inbox.receive(tx, events, stand.now())


async def _handle(stand: MeteringStand) -> int:
    steps = MeterReportActivities(stand.ledger, stand.stripe.client(), stand.now)
    return await ActivityEnvironment().run(steps.handle_meter_reports)


async def test_a_rejected_event_is_parked_with_its_request_and_told_once(
    stand: MeteringStand,
) -> None:
    await stand.customer()
    good, bad = await stand.use(), await stand.use()
    identifier = meter_identifier("acme", bad.key.request_id, INPUT)
    await stand.stripe.fault("rejected_later", identifier=identifier, code="archived_meter")
    await stand.send_all([good, bad])
    assert await _receive(stand) == 1

    assert await _handle(stand) == 1
    assert (await _receive(stand), await _handle(stand)) == (0, 0)  # delivered again
    async with stand.ledger.begin() as tx:
        undelivered = await outbox.pending(tx, [good.key, bad.key])
        told = await notices.waiting(tx, None)
        stuck = await waiting.waiting(tx, older_than=stand.now() + timedelta(hours=1))
        (rejection,) = (await tx.execute(select(MeterRejection))).all()
    (parked,) = undelivered
    assert (parked.key, parked.meter) == (bad.key, INPUT)
    assert (rejection.identifier, rejection.code) == (identifier, "archived_meter")
    (row,) = [row for row in stuck if row.what == "parked"]
    assert row.request_id == bad.key.request_id
    assert "archived_meter" in row.why
    (notice,) = told
    assert (notice.audience, notice.customer_id) == ("operator", None)
    assert notice.facts["counts"] == {"archived_meter": 1}
    assert notice.facts["requests"] == [f"acme/{bad.key.request_id}"]


async def test_a_sample_that_is_nobody_s_is_told_too(stand: MeteringStand) -> None:
    mapped = await stand.customer()
    await stand.stripe.fault("rejected_later", code="archived_meter")
    await stand.stripe.client().v1.billing.meter_events.create_async(
        {
            "event_name": INPUT,
            "identifier": "somebody-elses",
            "payload": {"stripe_customer_id": mapped, "value": "1"},
            "timestamp": int(stand.now().timestamp()),
        },
        {"idempotency_key": "somebody-elses"},
    )
    await _receive(stand)
    await _handle(stand)
    async with stand.ledger.begin() as tx:
        (notice,) = await notices.waiting(tx, None)
    assert notice.facts["unknown_identifiers"] == ["somebody-elses"]
    assert notice.facts["requests"] == []


async def test_a_report_that_stripe_no_longer_has_is_parked_and_holds_no_other_up(
    stand: MeteringStand,
) -> None:
    lost = {
        "id": "evt_lost",
        "object": "v2.core.event",
        "type": METER_REPORTS[1],
        "created": "2026-11-10T12:00:00Z",
    }
    async with stand.ledger.begin() as tx:
        await inbox.receive(tx, [read_event(lost)], stand.now() - timedelta(days=1))
    await stand.customer()
    await stand.stripe.fault("rejected_later", code="archived_meter", times=None)
    order = await stand.use()
    await stand.send(order)
    await _receive(stand)
    await _handle(stand)
    async with stand.ledger.begin() as tx:
        depth = await inbox.depth(tx)
        pending = await outbox.pending(tx, [order.key])
        told = await notices.waiting(tx, None)
        stuck = await waiting.waiting(tx, older_than=stand.now())
    assert (depth.waiting, depth.parked) == (0, 1)
    assert "evt_lost (v1.billing.meter.no_meter_found): Stripe no longer has" in stuck[0].why
    assert len(pending) == order.events
    assert {each.kind for each in told} == {"stripe_event_parked", "meter_events_rejected"}
