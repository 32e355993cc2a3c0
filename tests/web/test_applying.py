"""From a change at Stripe to the ledger, by real cycles: in any order, as often as it comes."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import stripe
from temporalio.client import Client as TemporalClient

from tallystick.embedded import TemporalServer
from tallystick.ledger import accounts
from tallystick.ledger.database import Ledger
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


async def test_a_failed_payment_and_the_card_that_makes_it_good_arrive_through_all_disorder(
    post: Post,
) -> None:
    await post.listen()
    await post.listen(THIN, "thin")
    await post.disturb(copies=3, shuffle_seconds=0.2, twice=True)
    customer = await post.customer(card="chargeDeclinedExpiredCard")
    invoice_id = await post.invoice(customer, 12_345)
    await post.shop.stand.fault("unavailable", match=f"GET /v1/invoices/{invoice_id}", times=2)
    with pytest.raises(stripe.CardError):
        await post.stripe.v1.invoices.pay_async(invoice_id)
    await post.settled()
    row = await post.row(invoice_id)
    assert (row.status, row.amount_paid_cents) == ("open", 0)
    assert row.failure == "the card has expired"
    assert row.failed_at is not None

    await post.new_card(customer)
    await post.settled()
    row = await post.row(invoice_id)
    assert (row.status, row.amount_paid_cents, row.failed_at) == ("paid", 12_345, None)

    # Every event there ever was, once more and in any order.
    await post.shop.stand.control("POST", "deliveries", copies=2, shuffle_seconds=0.2)
    await post.settled()
    assert (await post.row(invoice_id)).status == "paid"
    events = await post.events()
    assert all(event.applied_at is not None for event in events)
    assert {event.form for event in events if event.customer_id} == {"snapshot", "thin"}
    assert [each.kind for each in await post.notices()] == ["grace_started"]


async def test_what_stripe_will_never_show_is_parked_and_holds_nothing_else_up(post: Post) -> None:
    customer = await post.customer()
    gone = await post.invoice(customer, 100)
    kept = await post.invoice(customer, 200)
    await post.shop.stand.fault(
        "refused",
        match=f"GET /v1/invoices/{gone}",
        times=None,
        status=404,
        message="No such invoice",
    )
    await post.listen()
    for invoice_id in (gone, kept):
        await post.stripe.v1.invoices.pay_async(invoice_id)
    await post.settled()
    assert (await post.row(kept)).status == "paid"
    parked = [event for event in await post.events() if event.parked_at is not None]
    assert {event.object_id for event in parked} == {gone}
    told = {notice.facts["event_id"]: notice for notice in await post.notices()}
    assert told.keys() == {event.event_id for event in parked}
    assert {(each.audience, each.customer_id) for each in told.values()} == {("operator", "acme")}
    assert all("No such invoice" in each.message for each in told.values())


async def test_a_card_that_changed_is_a_reason_to_look_at_what_is_unpaid(post: Post) -> None:
    customer = await post.customer()
    invoice_id = await post.invoice(customer, 100)
    await post.stripe.v1.invoices.pay_async(invoice_id)  # nobody listens yet
    await post.listen(events=["payment_method.*"])
    await post.new_card(customer)
    await post.settled()
    assert (await post.row(invoice_id)).status == "paid"


async def test_operators_hear_of_a_subscription_that_stops_behind_the_account_s_back(
    post: Post,
) -> None:
    customer = await post.customer()
    subscription = await post.shop.subscribe(customer, post.shop.base)
    async with post.ledger.begin() as tx:
        await accounts.set_subscription(tx, "acme", subscription.id)
    await post.listen(events=["customer.subscription.*"])
    await post.stripe.v1.subscriptions.update_async(subscription.id, {"metadata": {"a": "b"}})
    await post.settled()
    assert await post.notices() == []
    await post.stripe.v1.subscriptions.cancel_async(subscription.id)
    await post.settled()
    (notice,) = await post.notices()
    assert (notice.kind, notice.audience) == ("subscription_stopped", "operator")
    assert subscription.id in notice.message
