"""Events find their cycle: whosever they are, whether Temporal is there or not, and once."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client as TemporalClient

from activities.event_forwarding import GONE, EventForwarder
from tallystick.contracts import cycle_workflow_id
from tallystick.embedded import TemporalServer, free_port, start_temporal, stop_process
from tallystick.ledger import inbox
from tallystick.ledger.database import Ledger
from tallystick.stripe_events import read_event
from tallystick.temporal import connect_temporal
from tallystick.web.app import utc_now
from tests.support.house import PATIENCE
from tests.web.conftest import invoice_event
from tests.web.post import THIN, Post, open_post, working


@pytest_asyncio.fixture
async def post(
    temporal_server: TemporalServer, temporal: TemporalClient, ledger: Ledger
) -> AsyncIterator[Post]:
    async with (
        open_post(ledger, temporal_server.address) as post,
        working(temporal, post),
    ):
        yield post
        await post.end_cycle()


async def _told(temporal: TemporalClient, customer: str) -> list[str]:
    """Return the events that a customer's cycle was told of, signal by signal."""
    history = await temporal.get_workflow_handle(cycle_workflow_id(customer)).fetch_history()
    signals = [
        event.workflow_execution_signaled_event_attributes.input.payloads[0].data
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
    ]
    return [event_id for data in signals for event_id in json.loads(data)["event_ids"]]


async def test_a_thin_event_s_customer_is_asked_of_stripe_where_the_ledger_does_not_know(
    post: Post, temporal: TemporalClient
) -> None:
    customer = await post.customer()
    await post.listen(THIN, "thin", events=["invoice.finalized", "payment_method.attached"])
    await post.shop.invoice(customer, 100)
    await post.stripe.v1.payment_methods.attach_async("pm_card_visa", {"customer": customer})
    await post.settled()
    events = await post.events()
    assert {(event.customer_id, event.stripe_customer_id) for event in events} == {
        ("acme", customer)
    }
    assert sorted(await _told(temporal, "acme")) == sorted(event.event_id for event in events)


async def test_what_concerns_nobody_of_ours_is_done_with_and_says_why(post: Post) -> None:
    await post.listen()
    await post.listen(THIN, "thin")
    stranger = await post.shop.customer("visa")
    await post.shop.invoice(stranger, 100)
    deleted = read_event(
        {
            "id": "evt_deleted",
            "object": "v2.core.event",
            "type": "v1.invoice.deleted",
            "created": "2026-01-01T00:00:00Z",
            "related_object": {"id": "in_gone", "type": "invoice", "url": "/v1/invoices/in_gone"},
        }
    )
    async with post.ledger.begin() as tx:
        await inbox.receive(tx, [deleted], utc_now())
    await post.stripe.v1.payment_methods.attach_async("pm_card_visa", {"customer": stranger})
    await post.settled()
    events = await post.events()
    assert {event.customer_id for event in events} == {None}
    reasons = {event.event_id: event.reason for event in events}
    assert reasons.pop("evt_deleted") == GONE
    assert set(reasons.values()) == {inbox.NO_CUSTOMER, inbox.NO_CONCERN}


async def test_an_event_waits_while_stripe_cannot_say_whose_it_is(post: Post) -> None:
    customer = await post.customer()
    invoice = await post.shop.invoice(customer, 100)
    await post.listen(THIN, "thin", events=["invoice.paid", "customer.updated"])
    await post.shop.stand.fault("unavailable", match=f"GET /v1/invoices/{invoice.id}")
    await post.stripe.v1.invoices.pay_async(invoice.id)
    await post.sent()
    async with asyncio.timeout(PATIENCE):
        while not (await post.shop.stand.control("GET", "faults"))["applied"]:
            await asyncio.sleep(0.05)
    (waits,) = await post.events()
    assert (waits.customer_id, waits.applied_at) == (None, None)
    await post.stripe.v1.customers.update_async(customer, {"name": "wakes the forwarder"})
    await post.settled()
    assert {event.customer_id for event in await post.events()} == {"acme"}


async def test_forwarders_that_meet_tell_of_each_event_once(
    post: Post, temporal: TemporalClient
) -> None:
    customer = await post.customer()
    data = {"object": {"id": "in_other", "object": "invoice", "customer": customer}}
    events = [read_event(invoice_event(f"evt_{number}", data=data)) for number in range(450)]
    async with post.ledger.begin() as tx:
        await inbox.receive(tx, events, utc_now())
    forwarder = EventForwarder(post.ledger, post.stripe, utc_now)
    # Beside them the web process's own, which looks once after it has started.
    await asyncio.gather(*(forwarder.forward(temporal) for _ in range(4)))
    await post.settled()  # until then signals may wait for the cycle to take them in
    told = await _told(temporal, "acme")
    assert sorted(told) == sorted(event.event_id for event in events)


async def test_a_cycle_that_was_terminated_comes_back_with_the_news(
    post: Post, temporal: TemporalClient
) -> None:
    customer = await post.customer()
    first = await post.invoice(customer, 100)
    second = await post.invoice(customer, 200)
    await post.listen(events=["invoice.paid"])
    await post.stripe.v1.invoices.pay_async(first)
    await post.settled()
    await post.end_cycle()
    await post.stripe.v1.invoices.pay_async(second)
    await post.settled()
    assert (await post.row(second)).status == "paid"


async def test_while_temporal_is_away_events_wait_and_are_acknowledged(ledger: Ledger) -> None:
    with tempfile.TemporaryDirectory(prefix="tallystick-") as folder:
        port = free_port()
        async with open_post(ledger, f"127.0.0.1:{port}") as post:
            customer = await post.customer()
            invoice_id = await post.invoice(customer, 100)
            await post.listen(events=["invoice.*"])
            await post.stripe.v1.invoices.pay_async(invoice_id)
            await post.sent()
            deliveries = (await post.shop.stand.control("GET", "deliveries"))["deliveries"]
            assert {row["status"] for row in deliveries} == {200}
            assert (await post.depth()).waiting == len(deliveries)

            server = await start_temporal(Path(folder), port=port, ui_port=None)
            try:
                temporal = await connect_temporal(server.address)
                async with working(temporal, post):
                    await post.settled()
                    assert (await post.row(invoice_id)).status == "paid"
                    await post.end_cycle()
            finally:
                await stop_process(server.process)
