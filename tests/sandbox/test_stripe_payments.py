"""How the Stripe stand-in collects: declines, retries, and what becomes of who never pays."""

from collections.abc import AsyncGenerator

import pytest
import stripe

from tests.sandbox.stripe_billing import Business, business

HOUR, DAY = 3600, 86400


@pytest.fixture(name="shop")
async def _shop() -> AsyncGenerator[Business, None]:
    async with business() as shop:
        yield shop


async def _failed_cycle(shop: Business, card: str) -> tuple[str, stripe.Subscription, int]:
    """Return a customer, a subscription whose first cycle could not be charged, and when."""
    customer = await shop.customer(card)
    subscription = await shop.subscribe(customer, shop.use_price)
    await shop.use(customer, 10_000_000_000)
    failed_at = subscription["items"].data[0].current_period_end + HOUR
    await shop.to(failed_at)
    return customer, subscription, failed_at


@pytest.mark.parametrize(
    ("card", "code", "decline_code"),
    [
        ("chargeDeclined", "card_declined", "generic_decline"),
        ("chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("chargeDeclinedExpiredCard", "expired_card", "expired_card"),
        ("chargeDeclinedLostCard", "card_declined", "lost_card"),
    ],
)
async def test_a_test_card_declines_as_its_name_says(
    shop: Business, card: str, code: str, decline_code: str
) -> None:
    invoice = await shop.invoice(await shop.customer(card), 1000)
    with pytest.raises(stripe.CardError) as caught:
        await shop.stripe.invoices.pay_async(invoice.id)
    error = caught.value.error
    assert error is not None
    assert (caught.value.http_status, error.code, error.decline_code) == (402, code, decline_code)
    assert error.payment_intent is not None
    assert error.payment_intent.status == "requires_payment_method"
    shown = await shop.stripe.invoices.retrieve_async(invoice.id)
    assert (shown.status, shown.attempt_count, shown.amount_remaining) == ("open", 1, 1000)
    (event,) = await shop.events("invoice.payment_failed")
    assert event.data.object["attempt_count"] == 1


async def test_without_a_card_there_is_nothing_to_charge(shop: Business) -> None:
    invoice = await shop.invoice(await shop.customer(None), 1000)
    with pytest.raises(stripe.InvalidRequestError, match="default_payment_method"):
        await shop.stripe.invoices.pay_async(invoice.id)
    _, subscription, _ = await _failed_cycle(shop, "visa")
    await shop.stripe.customers.create_async({})
    assert await shop.status(subscription.id) == "active"


async def test_a_failed_cycle_is_tried_again_eight_times_in_two_weeks(shop: Business) -> None:
    _, subscription, failed_at = await _failed_cycle(shop, "chargeDeclined")
    invoice = await shop.latest(subscription.id)
    assert (invoice.status, invoice.attempt_count) == ("open", 1)
    assert invoice.next_payment_attempt == failed_at + DAY
    assert await shop.status(subscription.id) == "past_due"
    await shop.to(failed_at + 14 * DAY)
    failures = await shop.events("invoice.payment_failed")
    assert [event.data.object["attempt_count"] for event in failures] == list(range(1, 10))
    assert [(event.created - failed_at) // DAY for event in failures] == [
        0, 1, 3, 5, 7, 9, 11, 13, 14,
    ]  # fmt: skip
    assert failures[-1].data.object["next_payment_attempt"] is None
    invoice = await shop.stripe.invoices.retrieve_async(invoice.id)
    assert (invoice.status, invoice.next_payment_attempt) == ("open", None)
    assert await shop.status(subscription.id) == "past_due"


@pytest.mark.parametrize("then", ["unpaid", "canceled"])
async def test_the_settings_say_what_becomes_of_who_never_pays(shop: Business, then: str) -> None:
    await shop.stand.control("POST", "dunning", retry_days=[2], then=then)
    _, subscription, failed_at = await _failed_cycle(shop, "chargeDeclined")
    await shop.to(failed_at + 2 * DAY - 1)
    assert await shop.status(subscription.id) == "past_due"
    await shop.to(failed_at + 2 * DAY)
    assert await shop.status(subscription.id) == then
    await shop.to("2026-03-02T00:00:00")
    invoices = await shop.stripe.invoices.list_async({"subscription": subscription.id})
    states = [invoice.status for invoice in invoices.data]
    assert states == (["draft", "open"] if then == "unpaid" else ["open"])


async def test_a_payment_by_hand_restores_and_does_not_move_the_schedule(shop: Business) -> None:
    customer, subscription, failed_at = await _failed_cycle(shop, "chargeDeclined")
    invoice = await shop.latest(subscription.id)
    with pytest.raises(stripe.CardError):
        await shop.stripe.invoices.pay_async(invoice.id)
    shown = await shop.stripe.invoices.retrieve_async(invoice.id)
    assert (shown.attempt_count, shown.next_payment_attempt) == (1, failed_at + DAY)
    card = await shop.stripe.payment_methods.attach_async("pm_card_visa", {"customer": customer})
    await shop.stripe.customers.update_async(
        customer, {"invoice_settings": {"default_payment_method": card.id}}
    )
    assert await shop.status(subscription.id) == "past_due"  # a new card alone pays nothing
    paid = await shop.stripe.invoices.pay_async(invoice.id)
    assert (paid.status, paid.amount_paid, paid.next_payment_attempt) == ("paid", 1000, None)
    assert await shop.status(subscription.id) == "active"


async def test_a_new_card_is_used_at_the_next_scheduled_attempt(shop: Business) -> None:
    customer, subscription, failed_at = await _failed_cycle(shop, "chargeDeclinedInsufficientFunds")
    card = await shop.stripe.payment_methods.attach_async("pm_card_visa", {"customer": customer})
    await shop.stripe.customers.update_async(
        customer, {"invoice_settings": {"default_payment_method": card.id}}
    )
    await shop.to(failed_at + DAY)
    invoice = await shop.latest(subscription.id)
    assert (invoice.status, invoice.attempt_count) == ("paid", 2)
    assert invoice.status_transitions.paid_at == failed_at + DAY


async def test_a_hard_decline_is_final_for_the_card(shop: Business) -> None:
    customer = await shop.customer()
    invoice = await shop.invoice(customer, 1000)
    await shop.next_charges(customer, decline_code="stolen_card")
    for _ in range(2):
        with pytest.raises(stripe.CardError) as caught:
            await shop.stripe.invoices.pay_async(invoice.id)
        assert caught.value.error is not None
        assert caught.value.error.decline_code == "stolen_card"
    card = await shop.stripe.payment_methods.attach_async("pm_card_visa", {"customer": customer})
    paid = await shop.stripe.invoices.pay_async(invoice.id, {"payment_method": card.id})
    assert paid.status == "paid"


async def test_the_next_charges_do_as_they_are_told_and_then_as_the_card_does(
    shop: Business,
) -> None:
    customer = await shop.customer()
    invoice = await shop.invoice(customer, 1000)
    await shop.next_charges(customer, decline_code="insufficient_funds", times=2)
    await shop.next_charges(customer, partial=400)
    await shop.next_charges(customer, action_required=True)
    for _ in range(2):
        with pytest.raises(stripe.CardError):
            await shop.stripe.invoices.pay_async(invoice.id)
    part = await shop.stripe.invoices.pay_async(invoice.id)
    assert (part.status, part.amount_paid, part.amount_remaining) == ("open", 400, 600)
    with pytest.raises(stripe.CardError) as caught:
        await shop.stripe.invoices.pay_async(invoice.id)
    assert caught.value.code == "invoice_payment_intent_requires_action"
    assert len(await shop.events("invoice.payment_action_required")) == 1
    whole = await shop.stripe.invoices.pay_async(invoice.id)
    assert (whole.status, whole.amount_paid) == ("paid", 1000)
    assert len(await shop.events("invoice.paid")) == 1


async def test_only_the_latest_final_invoice_decides_about_a_subscription(shop: Business) -> None:
    customer, subscription, _ = await _failed_cycle(shop, "chargeDeclined")
    older = await shop.latest(subscription.id)
    await shop.use(customer, 10_000_000_000)
    await shop.to("2026-03-01T01:00:00")
    newer = await shop.latest(subscription.id)
    card = await shop.stripe.payment_methods.attach_async("pm_card_visa", {"customer": customer})
    await shop.stripe.invoices.pay_async(older.id, {"payment_method": card.id})
    assert await shop.status(subscription.id) == "past_due"
    await shop.stripe.invoices.pay_async(newer.id, {"payment_method": card.id})
    assert await shop.status(subscription.id) == "active"


async def test_a_cards_customer_is_known_and_only_theirs_can_be_the_default(
    shop: Business,
) -> None:
    customer, other = await shop.customer(None), await shop.customer(None)
    card = await shop.stripe.payment_methods.attach_async("pm_card_visa", {"customer": customer})
    listed = await shop.stripe.payment_methods.list_async({"customer": customer, "type": "card"})
    of_customer = await shop.stripe.customers.payment_methods.list_async(customer)
    assert [each.id for each in listed.data] == [card.id]
    assert [each.id for each in of_customer.data] == [card.id]
    for stranger in (card.id, "pm_card_visa"):
        with pytest.raises(stripe.InvalidRequestError, match="must be attached"):
            await shop.stripe.customers.update_async(
                other, {"invoice_settings": {"default_payment_method": stranger}}
            )
    await shop.stripe.customers.update_async(
        customer, {"invoice_settings": {"default_payment_method": card.id}}
    )
    await shop.stripe.payment_methods.detach_async(card.id)
    shown = await shop.stripe.customers.retrieve_async(customer)
    assert shown.invoice_settings is not None
    assert shown.invoice_settings.default_payment_method is None
