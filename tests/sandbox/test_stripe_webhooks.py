"""Events and webhooks of the Stripe stand-in, judged by the official SDK."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import stripe

from tests.contract.stripe_contract import stripe_contract
from tests.sandbox.listener import Heard, Listener, listener
from tests.sandbox.stripe_billing import Business, business

HOUR, DAY = 3600, 86400
SECRET = "whsec_mine"


@pytest.fixture(name="shop")
async def _shop() -> AsyncGenerator[Business, None]:
    async with business() as shop:
        yield shop


@pytest.fixture(name="ear")
async def _ear() -> AsyncGenerator[Listener, None]:
    async with listener() as ear:
        yield ear


async def _endpoint(shop: Business, ear: Listener, **more: Any) -> str:
    order = {"url": ear.url, "secret": SECRET, **more}
    return (await shop.stand.control("POST", "webhooks", **order))["id"]


def _read(shop: Business, heard: Heard, secret: str = SECRET) -> stripe.Event:
    return shop.stand.client().construct_event(heard.body, heard.signature, secret)


def _types(ear: Listener) -> list[str]:
    return [json.loads(heard.body)["type"] for heard in ear.heard]


async def _settle(shop: Business) -> None:
    """Return when all webhooks were answered; the clock stands still from then on."""
    await shop.stand.control("POST", "clock", advance=0)


async def _fetch(shop: Business, note: Any) -> Any:
    """Fetch a thin event. Its own `fetch_event_async` sends a stray `usage` parameter in SDK 16.1,
    which `fetch_event` keeps to itself.
    """
    return await shop.stand.client().v2.core.events.retrieve_async(note.id)


async def _disturb(shop: Business, **disturbance: Any) -> None:
    await shop.stand.control("POST", "disturbances", **disturbance)


async def test_a_webhook_is_signed_whole_and_of_the_endpoints_version(
    shop: Business, ear: Listener
) -> None:
    await _endpoint(shop, ear, events=["customer.*"])
    customer = await shop.customer(None)
    await shop.invoice(customer, -1000)
    await _settle(shop)
    assert _types(ear) == ["customer.created", "customer.updated"]
    created = _read(shop, ear.heard[0])
    assert created.data.object["id"] == customer
    assert created.api_version == stripe.api_version
    assert created.livemode is True
    with pytest.raises(stripe.SignatureVerificationError):
        _read(shop, ear.heard[0], "whsec_other")
    (row, _) = (await shop.stand.control("GET", "deliveries"))["deliveries"]
    assert (row["event"], row["status"], row["attempt"]) == (created.id, 200, 1)


async def test_what_webhooks_carry_is_what_the_api_shows(shop: Business, ear: Listener) -> None:
    await _endpoint(shop, ear)
    customer = await shop.customer("chargeDeclined")
    await shop.subscribe(customer, shop.use_price)
    await shop.use(customer, 10_000_000_000)
    await shop.item(customer, 100)
    await shop.to("2026-02-03T00:00:00")
    paths = {
        "customer": "/v1/customers/x",
        "invoice": "/v1/invoices/x",
        "invoiceitem": "/v1/invoiceitems/x",
        "payment_intent": "/v1/payment_intents/x",
        "payment_method": "/v1/payment_methods/x",
        "subscription": "/v1/subscriptions/x",
    }
    judge = stripe_contract().answer_faults
    seen: set[str] = set()
    for heard in ear.heard:
        assert judge("GET", "/v1/events/x", 200, heard.body.encode()) == []
        shown = json.loads(heard.body)["data"]["object"]
        assert judge("GET", paths[shown["object"]], 200, json.dumps(shown).encode()) == []
        seen.add(shown["object"])
    assert seen == set(paths)


async def test_an_endpoint_made_by_the_api_shows_its_secret_once_and_it_signs(
    shop: Business, ear: Listener
) -> None:
    made = await shop.stripe.webhook_endpoints.create_async(
        {
            "url": ear.url,
            "enabled_events": ["customer.created"],
            "api_version": "2026-10-28.endive",
        }
    )
    assert made.secret is not None
    again = await shop.stripe.webhook_endpoints.retrieve_async(made.id)
    assert "secret" not in again
    await shop.customer(None)
    await ear.until(lambda ear: len(ear.heard) == 1)
    assert _read(shop, ear.heard[0], made.secret).type == "customer.created"
    await shop.stripe.webhook_endpoints.update_async(made.id, {"disabled": True})
    await shop.customer(None)
    await _settle(shop)
    assert len(ear.heard) == 1
    await shop.stripe.webhook_endpoints.delete_async(made.id)
    assert (await shop.stripe.webhook_endpoints.list_async()).data == []


async def test_while_a_secret_is_rolled_both_sign(shop: Business, ear: Listener) -> None:
    endpoint = await _endpoint(shop, ear, events=["customer.created"])
    await shop.stand.control("POST", f"webhooks/{endpoint}/secret", secret="new", old_for=DAY)
    await shop.customer(None)
    await shop.stand.control("POST", "clock", advance=DAY)
    await shop.customer(None)
    await _settle(shop)
    during, after = ear.heard
    for secret in (SECRET, "new"):
        assert _read(shop, during, secret).type == "customer.created"
    with pytest.raises(stripe.SignatureVerificationError):
        _read(shop, after)
    assert _read(shop, after, "new").type == "customer.created"


async def test_an_unanswered_webhook_is_sent_again_for_three_days_and_no_longer(
    shop: Business, ear: Listener
) -> None:
    await _endpoint(shop, ear, events=["customer.created"])
    ear.status = 500
    await shop.customer(None)
    (event,) = await shop.events("customer.created")
    await shop.stand.control("POST", "clock", advance=3 * DAY)
    rows = (await shop.stand.control("GET", "deliveries"))["deliveries"]
    assert [row["attempt"] for row in rows] == list(range(1, 11))
    assert 2 * DAY < rows[-1]["at"] - event.created <= 3 * DAY
    assert {heard.body for heard in ear.heard} == {ear.heard[0].body}
    await shop.stand.control("POST", "clock", advance=3 * DAY)
    assert len(ear.heard) == 10
    undelivered = await shop.stripe.events.list_async({"delivery_success": False})
    assert [each.id for each in undelivered.data] == [event.id]
    assert undelivered.data[0].pending_webhooks == 1


async def test_a_retry_that_is_answered_is_the_last(shop: Business, ear: Listener) -> None:
    await _endpoint(shop, ear, events=["customer.created"])
    ear.failing = 2
    await shop.customer(None)
    await shop.stand.control("POST", "clock", advance=3 * DAY)
    assert len(ear.heard) == 3
    assert (await shop.stripe.events.list_async({"delivery_success": False})).data == []


async def test_a_draft_waits_for_its_webhook_and_then_for_an_hour(
    shop: Business, ear: Listener
) -> None:
    await _endpoint(shop, ear, events=["invoice.created"])
    ear.failing = 2  # answered at the third attempt, 35 minutes after the first
    subscription = await shop.subscribe(await shop.customer(), shop.use_price)
    start = subscription["items"].data[0].current_period_end
    await shop.to(start)
    draft = await shop.latest(subscription.id)
    assert (draft.status, draft.webhooks_delivered_at) == ("draft", None)
    await shop.to(start + HOUR)
    draft = await shop.latest(subscription.id)
    assert draft.webhooks_delivered_at == start + 35 * 60
    assert draft.automatically_finalizes_at == start + HOUR + 35 * 60
    assert draft.status == "draft"
    await shop.to(start + HOUR + 35 * 60)
    assert (await shop.latest(subscription.id)).status == "paid"


async def test_a_draft_whose_webhook_is_never_answered_waits_for_72_hours(
    shop: Business, ear: Listener
) -> None:
    await _endpoint(shop, ear, events=["invoice.created"])
    ear.status = 503
    draft = await shop.stripe.invoices.create_async(
        {"customer": await shop.customer(), "auto_advance": True}
    )
    await shop.to(draft.created + 72 * HOUR - 1)
    assert (await shop.stripe.invoices.retrieve_async(draft.id)).status == "draft"
    await shop.to(draft.created + 72 * HOUR)
    assert (await shop.stripe.invoices.retrieve_async(draft.id)).status == "paid"


async def test_a_listener_finds_each_thing_at_its_own_instant(
    shop: Business, ear: Listener
) -> None:
    await _endpoint(shop, ear, events=["invoice.*", "customer.subscription.*"])
    customer = await shop.customer("chargeDeclined")
    subscription = await shop.subscribe(customer, shop.use_price)
    await shop.use(customer, 10_000_000_000)
    await shop.to("2026-03-02T00:00:00")
    heard = [_read(shop, each) for each in ear.heard]
    assert [event.created for event in heard] == sorted(event.created for event in heard)
    turn = subscription["items"].data[0].current_period_end
    at = {event.type: event.created - turn for event in reversed(heard)}
    assert at["invoice.created"] == 0
    assert at["invoice.finalized"] == at["invoice.payment_failed"] == HOUR
    assert len([each for each in heard if each.type == "invoice.payment_failed"]) == 9


async def test_a_thin_webhook_names_what_changed_and_is_fetched(
    shop: Business, ear: Listener
) -> None:
    await _endpoint(shop, ear, form="thin", events=["invoice.paid"])
    invoice = await shop.invoice(await shop.customer(), 0)
    await _settle(shop)
    (heard,) = ear.heard
    with pytest.raises(ValueError, match="thin"):
        _read(shop, heard)
    note = shop.stand.client().parse_event_notification(heard.body, heard.signature, SECRET)
    assert isinstance(note, stripe.events.V1InvoicePaidEventNotification)
    assert note.related_object.id == invoice.id
    fetched = await _fetch(shop, note)
    (whole,) = await shop.events("invoice.paid")
    assert fetched.snapshot_event == whole.id
    assert fetched.id != whole.id


async def test_meter_errors_come_as_thin_events_with_samples(shop: Business, ear: Listener) -> None:
    await _endpoint(shop, ear, form="thin", events=["billing.meter.*"])
    await shop.use("cus_none", 5)
    await shop.stripe.billing.meter_events.create_async(
        {"event_name": "none", "payload": {"stripe_customer_id": "c", "value": "5"}},
        {"idempotency_key": "the-key"},
    )
    await _settle(shop)
    client = shop.stand.client()
    notes = {
        note.type: note
        for heard in ear.heard
        for note in [client.parse_event_notification(heard.body, heard.signature, SECRET)]
    }
    report = notes["v1.billing.meter.error_report_triggered"]
    assert isinstance(report, stripe.events.V1BillingMeterErrorReportTriggeredEventNotification)
    assert report.related_object.id == shop.meter
    reason = (await _fetch(shop, report)).data.reason
    assert reason.error_types[0].code == "meter_event_customer_not_found"
    missing = notes["v1.billing.meter.no_meter_found"]
    assert isinstance(missing, stripe.events.V1BillingMeterNoMeterFoundEventNotification)
    reason = (await _fetch(shop, missing)).data.reason
    assert reason.error_types[0].sample_errors[0].request.identifier == "the-key"
    listed = await client.v2.core.events.list_async({"types": list(notes), "limit": 1})
    assert [event.type async for event in listed.auto_paging_iter()] == list(notes)[::-1]


async def test_a_thin_and_a_whole_endpoint_hear_of_one_change_twice(
    shop: Business, ear: Listener
) -> None:
    for form in ("snapshot", "thin"):
        await _endpoint(shop, ear, form=form, events=["customer.created"])
    await shop.customer(None)
    await _settle(shop)
    ids = {json.loads(heard.body)["id"] for heard in ear.heard}
    assert len(ids) == 2
    assert sorted(_types(ear)) == ["customer.created", "v1.customer.created"]


async def test_copies_arrive_in_any_order_and_the_event_is_the_same(
    shop: Business, ear: Listener
) -> None:
    await _endpoint(shop, ear, events=["customer.created"])
    await _disturb(shop, copies=3, shuffle_seconds=0.05)
    for _ in range(5):
        await shop.customer(None)
    await _settle(shop)
    order = [json.loads(heard.body)["id"] for heard in ear.heard]
    emitted = [event.id for event in await shop.events("customer.created")]
    assert sorted(order) == sorted(emitted * 3)
    assert order != sorted(order, key=emitted.index)


async def test_a_dropped_event_is_found_in_the_lists_alone(shop: Business, ear: Listener) -> None:
    await _endpoint(shop, ear, events=["customer.created"])
    await _disturb(shop, drop=True, times=1)
    lost, heard = await shop.customer(None), await shop.customer(None)
    await shop.stand.control("POST", "clock", advance=3 * DAY)
    assert [_read(shop, each).data.object["id"] for each in ear.heard] == [heard]
    undelivered = await shop.stripe.events.list_async(
        {"delivery_success": False, "types": ["customer.created"]}
    )
    assert [event.data.object["id"] for event in undelivered.data] == [lost]
    await shop.stand.control("POST", "clock", advance=28 * DAY)
    assert (await shop.stripe.events.list_async({"delivery_success": False})).data == []


async def test_a_delayed_event_comes_after_a_later_one(shop: Business, ear: Listener) -> None:
    await _endpoint(shop, ear, events=["customer.created"])
    await _disturb(shop, delay=600, times=1)
    customers = [await shop.customer(None) for _ in range(2)]
    await shop.stand.control("POST", "clock", advance=600)
    assert [_read(shop, each).data.object["id"] for each in ear.heard] == customers[::-1]


async def test_one_change_can_make_two_events(shop: Business, ear: Listener) -> None:
    await _endpoint(shop, ear, events=["customer.created"])
    await _disturb(shop, twice=True)
    await shop.customer(None)
    await _settle(shop)
    one, other = [_read(shop, heard) for heard in ear.heard]
    assert one.id != other.id
    assert one.data.object["id"] == other.data.object["id"]
    assert len(await shop.events("customer.created")) == 2


@pytest.mark.parametrize(
    "manner",
    [
        {"signature": "wrong_secret"},
        {"signature": "missing"},
        {"signature": "garbled"},
        {"signed_seconds": -301},
    ],
    ids=str,
)
async def test_a_signature_can_be_wrong_and_its_retry_is_right(
    shop: Business, ear: Listener, manner: dict[str, Any]
) -> None:
    await _endpoint(shop, ear, events=["customer.created"])
    await _disturb(shop, **manner)
    ear.failing = 1
    await shop.customer(None)
    await shop.stand.control("POST", "clock", advance=HOUR)
    wrong, right = ear.heard
    with pytest.raises(stripe.SignatureVerificationError):
        _read(shop, wrong)
    assert _read(shop, right).type == "customer.created"


async def test_another_version_has_its_name_and_its_shape(shop: Business, ear: Listener) -> None:
    await _endpoint(shop, ear, events=["invoice.paid", "customer.subscription.created"])
    await _disturb(shop, api_version="2024-06-20")
    subscription = await shop.subscribe(await shop.customer(), shop.base)
    await _settle(shop)
    events = {event.type: event for event in (_read(shop, heard) for heard in ear.heard)}
    assert {event.api_version for event in events.values()} == {"2024-06-20"}
    invoice = events["invoice.paid"].data.object
    assert "parent" not in invoice
    assert (invoice["subscription"], invoice["paid"]) == (subscription.id, True)
    shown = events["customer.subscription.created"].data.object
    assert shown["current_period_end"] == subscription["items"].data[0].current_period_end


async def test_old_events_are_sent_again_on_demand(shop: Business, ear: Listener) -> None:
    for _ in range(4):
        await shop.customer(None)
    await _endpoint(shop, ear)
    sent = await shop.stand.control(
        "POST", "deliveries", types=["customer.created"], copies=2, shuffle_seconds=0.02
    )
    assert sent == {"sent": 8}
    emitted = [event.id for event in await shop.events("customer.created")]
    assert sorted(json.loads(heard.body)["id"] for heard in ear.heard) == sorted(emitted * 2)


async def test_events_can_be_made_out_of_turn(shop: Business, ear: Listener) -> None:
    customer = await shop.customer(None)
    (first,) = await shop.events("customer.created")
    await _endpoint(shop, ear)
    await shop.stand.control("POST", "events", event=first.id)
    await shop.stand.control(
        "POST", "events", type="customer.renamed", kind="customer", id=customer, times=2
    )
    await _settle(shop)
    assert sorted(_types(ear)) == ["customer.created", *["customer.renamed"] * 2]


async def test_nothing_is_sent_beyond_loopback(shop: Business) -> None:
    await shop.stand.control("POST", "webhooks", url="http://192.0.2.1/", secret=SECRET)
    await shop.customer(None)
    await _settle(shop)
    (row,) = (await shop.stand.control("GET", "deliveries"))["deliveries"]
    assert (row["status"], row["error"]) == (None, "only loopback addresses are called")


async def test_events_are_paged_newest_first_and_bounded_by_time(shop: Business) -> None:
    await shop.customer(None)
    await shop.to("2026-01-02T00:00:00")
    late = [await shop.customer(None) for _ in range(3)]
    found = await shop.stripe.events.list_async(
        {"type": "customer.created", "created": {"gte": 1767312000}, "limit": 2}
    )
    assert found.has_more
    listed = [event.data.object["id"] async for event in found.auto_paging_iter()]
    assert listed == late[::-1]
    thin = await shop.stand.client().v2.core.events.list_async(
        {"types": ["v1.customer.created"], "created": {"gte": "2026-01-02T00:00:00Z"}, "limit": 2}
    )
    assert len([event async for event in thin.auto_paging_iter()]) == 3
