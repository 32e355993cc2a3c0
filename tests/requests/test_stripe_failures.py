"""When Stripe fails: answers go on, and metering catches up, once."""

import asyncio

import pytest
from temporalio.client import Client as TemporalClient

from tallystick.ledger import customers
from tallystick.ledger.tables import Customer
from tests.support.house import PATIENCE, House, open_house


async def _effective_once(house: House, request_id: str) -> None:
    events = await house.meter_events(request_id)
    assert events
    assert all(event.delivered_at for event in events)
    counted = [row["identifier"] for row in await house.stripe.journal() if row["effective"]]
    for event in events:
        assert counted.count(event.identifier) == 1


@pytest.mark.parametrize("fault", ["rate_limited", "server_error", "unavailable", "no_answer"])
@pytest.mark.parametrize("transport", ["stream", "events"])
async def test_an_answer_never_waits_for_stripe(
    temporal: TemporalClient, database_url: str, fault: str, transport: str
) -> None:
    path = "meter_event_stream" if transport == "stream" else "billing/meter_events"
    name = f"{transport}-{fault}"
    async with open_house(temporal, database_url, name, stripe_transport=transport) as house:
        await house.stripe.order(fault, match=path, times=2)
        reply = await house.ask("r-1")
        assert reply.bill.charge_usd
        await house.done("r-1")
        await _effective_once(house, "r-1")
        calls = (await house.stripe.get("totals"))["calls"]
        assert any(path in call for call in calls)


async def test_while_stripe_is_down_answers_and_bills_go_on(house: House) -> None:
    await house.stripe.order("reset", times=None)
    for number in range(5):
        await house.ask(f"r-{number}")
    assert await house.stripe.journal() == []
    await house.stripe.disarm()
    for number in range(5):
        await house.done(f"r-{number}")
        await _effective_once(house, f"r-{number}")


async def test_a_customer_unknown_to_stripe_is_served_parked_and_metered_once_mapped(
    house: House,
) -> None:
    async with house.ledger.begin() as tx:
        await customers.add(tx, Customer(customer_id="new", name="New", plan="pass-through"))
        known = await customers.get(tx, house.customer)
    assert known is not None
    reply = await house.ask("r-1", customer_id="new")
    assert reply.bill.charge_usd
    handle = house.workflow("r-1", "new")
    async with asyncio.timeout(PATIENCE):
        while True:
            attributes = (await handle.describe()).typed_search_attributes
            if {p.key.name: p.value for p in attributes}["BillingState"] == "stuck":
                break
            await asyncio.sleep(0.05)
    assert all(event.parked_reason for event in await house.meter_events("r-1"))
    async with house.ledger.begin() as tx:
        await customers.set_stripe_customer(tx, house.customer, "cus_other")
        await customers.set_stripe_customer(tx, "new", known.stripe_customer_id or "")
    await handle.signal("retry_now")
    await handle.result()
    await _effective_once(house, "r-1")
