"""Subscriptions of the Stripe stand-in: periods, cycle invoices, changes and ends."""

from collections.abc import AsyncGenerator
from decimal import Decimal

import pytest
import stripe

from tests.sandbox.stripe_billing import Business, amounts, at, business, periods

HOUR, DAY = 3600, 86400


@pytest.fixture(name="shop")
async def _shop() -> AsyncGenerator[Business, None]:
    async with business() as shop:
        yield shop


async def test_an_anchor_on_the_31st_clamps_to_the_end_of_a_month_and_returns(
    shop: Business,
) -> None:
    await shop.to("2027-12-31T23:30:00")
    subscription = await shop.subscribe(await shop.customer(), shop.use_price)
    starts: list[int] = []
    for _ in range(5):
        shown = await shop.stripe.subscriptions.retrieve_async(subscription.id)
        starts.append(periods(shown)[0])
        await shop.to(periods(shown)[1])
    assert starts == [
        at("2027-12-31T23:30:00"),
        at("2028-01-31T23:30:00"),
        at("2028-02-29T23:30:00"),
        at("2028-03-31T23:30:00"),
        at("2028-04-30T23:30:00"),
    ]


async def test_an_anchor_by_day_of_month_means_that_day_also_where_it_was_clamped(
    shop: Business,
) -> None:
    await shop.to("2026-02-10T08:15:20")
    config: stripe.params.SubscriptionCreateParamsBillingCycleAnchorConfig = {
        "day_of_month": 31,
        "hour": 0,
        "minute": 0,
        "second": 0,
    }
    subscription = await shop.subscribe(
        await shop.customer(), shop.use_price, billing_cycle_anchor_config=config
    )
    assert subscription.billing_cycle_anchor == at("2026-02-28T00:00:00")
    assert periods(subscription) == (at("2026-02-10T08:15:20"), at("2026-02-28T00:00:00"))
    await shop.to("2026-02-28T00:00:00")
    shown = await shop.stripe.subscriptions.retrieve_async(subscription.id)
    assert periods(shown) == (at("2026-02-28T00:00:00"), at("2026-03-31T00:00:00"))


async def test_metered_prices_alone_make_no_first_invoice_and_bill_what_was_used(
    shop: Business,
) -> None:
    customer = await shop.customer()
    subscription = await shop.subscribe(customer, shop.use_price)
    assert (subscription.status, subscription.latest_invoice) == ("active", None)
    start, end = periods(subscription)
    await shop.to("2026-01-31T23:59:00")
    await shop.use(customer, 1_234_567_890, start)
    await shop.use(customer, 5_000_000, end - 1)
    await shop.use(customer, 7_000_000_000, end)
    await shop.to(end)
    invoice = await shop.latest(subscription.id)
    (line,) = invoice.lines.data
    # 1,239,567,890 nano-USD are 123.956789 cents; what was used at the boundary is the next's.
    assert (line.amount, line.quantity, line.quantity_decimal) == (
        124, 1_239_567_890, Decimal(1_239_567_890),
    )  # fmt: skip
    assert (line.period.start, line.period.end) == (start, end)
    assert (invoice.status, invoice.billing_reason) == ("draft", "subscription_cycle")
    assert (invoice.period_start, invoice.period_end) == (start, end)
    assert invoice.parent is not None
    assert invoice.parent.subscription_details is not None
    assert invoice.parent.subscription_details.subscription == subscription.id


async def test_half_a_cent_rounds_up_on_each_line(shop: Business) -> None:
    customer = await shop.customer()
    meter = await shop.stripe.billing.meters.create_async(
        {"display_name": "2", "event_name": "2", "default_aggregation": {"formula": "sum"}}
    )
    second = await shop.price("0.0000001", meter=meter.id)
    subscription = await shop.subscribe(customer, shop.use_price, second)
    await shop.use(customer, 5_000_000)  # 0.5 cents
    await shop.stripe.billing.meter_events.create_async(
        {"event_name": "2", "payload": {"stripe_customer_id": customer, "value": "14999999"}}
    )
    await shop.to(periods(subscription)[1])
    assert amounts(await shop.latest(subscription.id)) == [1, 1]


async def test_a_base_price_is_paid_in_advance_and_use_in_arrears(shop: Business) -> None:
    customer = await shop.customer()
    subscription = await shop.subscribe(customer, shop.base, shop.use_price)
    first = await shop.latest(subscription.id)
    assert subscription.status == "active"
    assert (first.status, first.amount_paid, amounts(first)) == ("paid", 2000, [2000])
    await shop.use(customer, 3_000_000_000)
    await shop.item(customer, -150, description="goodwill")
    start, end = periods(subscription)
    await shop.to(end)
    second = await shop.latest(subscription.id)
    assert [(line.amount, line.period.start, line.period.end) for line in second.lines.data] == [
        (-150, start, start),
        (300, start, end),
        (2000, end, at("2026-03-01T00:00:00")),
    ]
    assert second.total == 2150


async def test_use_reported_before_the_draft_is_final_counts_and_afterwards_never(
    shop: Business,
) -> None:
    customer = await shop.customer()
    subscription = await shop.subscribe(customer, shop.use_price)
    end = periods(subscription)[1]
    await shop.to(end + HOUR - 1)
    await shop.use(customer, 1_000_000_000, end - 1)
    draft = await shop.latest(subscription.id)
    assert (draft.status, draft.total) == ("draft", 100)
    await shop.to(end + HOUR)
    await shop.use(customer, 1_000_000_000, end - 1)
    final = await shop.stripe.invoices.retrieve_async(draft.id)
    assert (final.status, final.total) == ("paid", 100)
    await shop.to("2026-03-01T00:00:00")
    assert (await shop.latest(subscription.id)).total == 0


async def test_use_in_the_last_seconds_may_miss_the_invoice_as_it_misses_summaries() -> None:
    async with business(summary_lag=60) as shop:
        customer = await shop.customer()
        subscription = await shop.subscribe(customer, shop.use_price)
        await shop.use(customer, 1_000_000_000)
        cancelled = await shop.stripe.subscriptions.cancel_async(
            subscription.id, {"invoice_now": True}
        )
        assert isinstance(cancelled.latest_invoice, str)
        final = await shop.stripe.invoices.finalize_invoice_async(cancelled.latest_invoice)
        assert final.total == 0


async def test_use_below_zero_and_of_an_archived_meter_is_billed_as_nothing(
    shop: Business,
) -> None:
    customer = await shop.customer()
    subscription = await shop.subscribe(customer, shop.use_price)
    await shop.use(customer, -1_000_000_000)
    await shop.to("2026-02-01T00:00:00")
    assert (await shop.latest(subscription.id)).total == 0
    await shop.use(customer, 1_000_000_000)
    await shop.stripe.billing.meters.deactivate_async(shop.meter)
    await shop.to("2026-03-01T00:00:00")
    assert (await shop.latest(subscription.id)).total == 0


async def test_a_future_anchor_prorates_the_first_period_unless_told_not_to(
    shop: Business,
) -> None:
    # 16 of January's 31 days are left to the anchor: 2000 * 16 / 31 is 1032.26.
    customer, anchor = await shop.customer(), at("2026-01-17T00:00:00")
    prorated = await shop.subscribe(customer, shop.base, billing_cycle_anchor=anchor)
    free = await shop.subscribe(
        customer, shop.base, billing_cycle_anchor=anchor, proration_behavior="none"
    )
    assert amounts(await shop.latest(prorated.id)) == [1032]
    assert free.latest_invoice is None
    await shop.to(anchor)
    assert amounts(await shop.latest(free.id)) == [2000]
    with pytest.raises(stripe.InvalidRequestError, match="natural"):
        await shop.subscribe(customer, shop.base, billing_cycle_anchor=at("2026-02-18T00:00:00"))


async def test_a_price_change_prorates_to_the_second_unless_told_not_to(shop: Business) -> None:
    customer, dearer = await shop.customer(), await shop.price("5000")
    prorated = await shop.subscribe(customer, shop.base)
    plain = await shop.subscribe(customer, shop.base)
    await shop.to("2026-01-11T00:00:00")
    for subscription, behavior in ((prorated, "create_prorations"), (plain, "none")):
        await shop.stripe.subscriptions.update_async(
            subscription.id,
            {
                "items": [{"id": subscription["items"].data[0].id, "price": dearer}],
                "proration_behavior": behavior,  # type: ignore[typeddict-item]
            },
        )
    await shop.to("2026-02-01T00:00:00")
    # 21 of 31 days are left: 2000 and 5000 times 21 / 31 are 1354.84 and 3387.10.
    assert amounts(await shop.latest(prorated.id)) == [-1355, 3387, 5000]
    assert amounts(await shop.latest(plain.id)) == [5000]


async def test_an_immediate_proration_is_invoiced_and_paid_at_once(shop: Business) -> None:
    subscription = await shop.subscribe(await shop.customer(), shop.base)
    await shop.to("2026-01-16T12:00:00")
    item = subscription["items"].data[0]
    await shop.stripe.subscriptions.update_async(
        subscription.id,
        {"items": [{"id": item.id, "quantity": 3}], "proration_behavior": "always_invoice"},
    )
    invoice = await shop.latest(subscription.id)
    assert (invoice.status, invoice.billing_reason) == ("paid", "subscription_update")
    assert amounts(invoice) == [-1000, 3000]


async def test_what_was_used_at_a_metered_price_is_billed_when_the_price_changes(
    shop: Business,
) -> None:
    customer = await shop.customer()
    double = await shop.price("0.0000002", meter=shop.meter)
    subscription = await shop.subscribe(customer, shop.use_price)
    start, end = periods(subscription)
    await shop.to("2026-01-11T00:00:00")
    await shop.use(customer, 1_000_000_000)
    await shop.stripe.subscriptions.update_async(
        subscription.id,
        {
            "items": [{"id": subscription["items"].data[0].id, "price": double}],
            "proration_behavior": "none",
        },
    )
    # Reported after the change, so it is priced anew, whenever it was used.
    await shop.use(customer, 1_000_000_000, start)
    await shop.to(end)
    assert amounts(await shop.latest(subscription.id)) == [100, 200]


async def test_a_cancellation_drops_the_use_that_was_not_invoiced_unless_told_to_invoice(
    shop: Business,
) -> None:
    dropped, billed = await shop.customer(), await shop.customer()
    for customer in (dropped, billed):
        subscription = await shop.subscribe(customer, shop.use_price)
        await shop.use(customer, 1_000_000_000)
        params: stripe.params.SubscriptionCancelParams = {"invoice_now": customer == billed}
        gone = await shop.stripe.subscriptions.cancel_async(subscription.id, params)
        assert gone.status == "canceled"
    assert (await shop.stripe.invoices.list_async({"customer": dropped})).data == []
    (last,) = (await shop.stripe.invoices.list_async({"customer": billed})).data
    assert (last.status, last.total) == ("draft", 100)
    await shop.to("2026-03-02T00:00:00")
    (last,) = (await shop.stripe.invoices.list_async({"customer": billed})).data
    assert last.status == "paid"
    assert (await shop.stripe.subscriptions.list_async({"customer": billed})).data == []


async def test_a_cancellation_at_the_periods_end_bills_the_use_and_no_next_period(
    shop: Business,
) -> None:
    customer = await shop.customer()
    subscription = await shop.subscribe(customer, shop.base, shop.use_price)
    await shop.use(customer, 1_000_000_000)
    await shop.stripe.subscriptions.update_async(subscription.id, {"cancel_at_period_end": True})
    await shop.to("2026-02-01T00:00:00")
    assert await shop.status(subscription.id) == "canceled"
    assert amounts(await shop.latest(subscription.id)) == [100]


async def test_a_cancellation_stops_the_collection_of_what_is_open(shop: Business) -> None:
    customer = await shop.customer("chargeDeclined")
    subscription = await shop.subscribe(customer, shop.use_price)
    await shop.use(customer, 1_000_000_000)
    await shop.to("2026-02-01T01:00:00")
    invoice = await shop.latest(subscription.id)
    assert invoice.next_payment_attempt is not None
    await shop.stripe.subscriptions.cancel_async(subscription.id)
    invoice = await shop.stripe.invoices.retrieve_async(invoice.id)
    assert (invoice.status, invoice.auto_advance, invoice.next_payment_attempt) == (
        "open", False, None,
    )  # fmt: skip


async def test_a_first_payment_that_fails_leaves_it_incomplete_for_23_hours(
    shop: Business,
) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="no attached payment source") as caught:
        await shop.subscribe(await shop.customer(None), shop.base)
    assert caught.value.code == "resource_missing"
    given_up = await shop.subscribe(await shop.customer("chargeDeclined"), shop.base)
    customer = await shop.customer("chargeDeclined")
    rescued = await shop.subscribe(customer, shop.base)
    assert (given_up.status, rescued.status) == ("incomplete", "incomplete")
    card = await shop.stripe.payment_methods.attach_async("pm_card_visa", {"customer": customer})
    invoice = await shop.latest(rescued.id)
    await shop.stripe.invoices.pay_async(invoice.id, {"payment_method": card.id})
    await shop.to(given_up.created + 23 * HOUR)
    assert await shop.status(given_up.id) == "incomplete_expired"
    assert (await shop.latest(given_up.id)).status == "void"
    assert await shop.status(rescued.id) == "active"


async def test_a_deleted_customer_ends_everything_and_can_still_be_asked_about(
    shop: Business,
) -> None:
    customer = await shop.customer("chargeDeclined")
    subscription = await shop.subscribe(customer, shop.use_price)
    await shop.use(customer, 1_000_000_000)
    await shop.invoice(customer, 1000, auto_advance=True)
    await shop.stripe.invoices.create_async({"customer": customer, "auto_advance": True})
    await shop.stripe.customers.delete_async(customer)
    assert await shop.status(subscription.id) == "canceled"
    assert (await shop.stripe.customers.retrieve_async(customer)).deleted is True
    await shop.to("2026-02-01T00:00:00")
    (invoice,) = (await shop.stripe.invoices.list_async({"customer": customer})).data
    assert (invoice.status, invoice.attempt_count) == ("open", 1)
    with pytest.raises(stripe.InvalidRequestError, match="No such customer"):
        await shop.item(customer, 100)


async def test_changes_are_refused_that_make_no_sense(shop: Business) -> None:
    customer = await shop.customer()
    yearly = await shop.price("20000", interval="year")
    with pytest.raises(stripe.InvalidRequestError, match="same interval"):
        await shop.subscribe(customer, shop.base, yearly)
    with pytest.raises(stripe.InvalidRequestError, match="days_until_due"):
        await shop.subscribe(customer, shop.base, collection_method="send_invoice")
    with pytest.raises(stripe.InvalidRequestError, match="at most 20"):
        await shop.subscribe(customer, *[shop.base] * 21)
    subscription = await shop.subscribe(customer, shop.base)
    await shop.stripe.subscriptions.cancel_async(subscription.id)
    with pytest.raises(stripe.InvalidRequestError, match="canceled subscription"):
        await shop.stripe.subscriptions.update_async(
            subscription.id, {"cancel_at_period_end": True}
        )
    with pytest.raises(stripe.InvalidRequestError, match="No such subscription"):
        await shop.stripe.subscriptions.cancel_async(subscription.id)


async def test_an_update_sets_and_unsets_and_its_event_tells_what_was_before(
    shop: Business,
) -> None:
    subscription = await shop.subscribe(
        await shop.customer(), shop.use_price, metadata={"a": "1", "b": "2"}
    )
    changed = await shop.stripe.subscriptions.update_async(
        subscription.id, {"metadata": {"a": "", "c": "3"}}
    )
    assert changed.metadata.to_dict() == {"b": "2", "c": "3"}
    (event,) = await shop.events("customer.subscription.updated")
    assert event.data.previous_attributes is not None
    assert event.data.previous_attributes["metadata"].to_dict() == {"a": "1", "b": "2"}
    assert event.data.object["metadata"].to_dict() == {"b": "2", "c": "3"}
