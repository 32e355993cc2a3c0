"""Invoices and invoice items of the Stripe stand-in, from draft to their ends."""

from collections.abc import AsyncGenerator
from decimal import Decimal

import pytest
import stripe

from tests.sandbox.stripe_billing import Business, amounts, at, business

HOUR, DAY = 3600, 86400


@pytest.fixture(name="shop")
async def _shop() -> AsyncGenerator[Business, None]:
    async with business() as shop:
        yield shop


async def test_pending_items_go_on_a_one_off_invoice_only_when_included(shop: Business) -> None:
    customer = await shop.customer()
    subscription = await shop.subscribe(customer, shop.use_price)
    await shop.item(customer, 700)
    await shop.item(customer, 900, subscription=subscription.id)
    empty = await shop.stripe.invoices.create_async({"customer": customer})
    full = await shop.stripe.invoices.create_async(
        {"customer": customer, "pending_invoice_items_behavior": "include"}
    )
    of_it = await shop.stripe.invoices.create_async(
        {"customer": customer, "subscription": subscription.id}
    )
    assert [amounts(each) for each in (empty, full, of_it)] == [[], [700], [900]]
    pending = await shop.stripe.invoice_items.list_async({"customer": customer, "pending": True})
    assert pending.data == []


async def test_an_items_quantity_times_its_unit_amount_is_exact_until_it_is_cents(
    shop: Business,
) -> None:
    customer = await shop.customer()
    for quantity, unit, cents in (
        ("1234567890123", "0.000000000001", 1),  # 1.234567890123
        ("12.5", "-3.4", -43),  # -42.5, half away from zero
        ("123456789012345", "0.0000001", 12_345_679),
    ):
        made = await shop.stripe.invoice_items.create_async(
            {
                "customer": customer,
                "currency": "usd",
                "quantity_decimal": Decimal(quantity),
                "unit_amount_decimal": Decimal(f"{Decimal(unit):f}"),
                "period": {"start": at("2025-12-01T00:00:00"), "end": at("2026-01-01T00:00:00")},
                "metadata": {"reason": "late"},
            }
        )
        assert (made.amount, made.quantity_decimal) == (cents, Decimal(quantity))
        assert made.period.start == at("2025-12-01T00:00:00")


async def test_items_are_added_to_drafts_alone_and_250_at_most(shop: Business) -> None:
    customer = await shop.customer()
    draft = await shop.stripe.invoices.create_async({"customer": customer})
    for n in range(250):
        await shop.item(customer, n, invoice=draft.id)
    with pytest.raises(stripe.InvalidRequestError, match="250"):
        await shop.item(customer, 1, invoice=draft.id)
    lines = await shop.stripe.invoices.line_items.list_async(draft.id, {"limit": 100})
    assert [line.amount async for line in lines.auto_paging_iter()] == list(range(250))
    final = await shop.stripe.invoices.finalize_invoice_async(draft.id)
    assert (final.total, final.lines.has_more) == (sum(range(250)), True)
    with pytest.raises(stripe.InvalidRequestError, match="no longer a draft"):
        await shop.item(customer, 1, invoice=draft.id)


async def test_an_item_can_be_deleted_until_its_invoice_is_final(shop: Business) -> None:
    customer = await shop.customer()
    draft = await shop.stripe.invoices.create_async({"customer": customer})
    kept, gone = [await shop.item(customer, cents, invoice=draft.id) for cents in (700, 900)]
    await shop.stripe.invoice_items.delete_async(gone.id)
    final = await shop.stripe.invoices.finalize_invoice_async(draft.id)
    assert amounts(final) == [700]
    with pytest.raises(stripe.InvalidRequestError, match="no longer a draft"):
        await shop.stripe.invoice_items.delete_async(kept.id)
    assert (await shop.stripe.invoice_items.retrieve_async(kept.id)).invoice == draft.id


async def test_a_deleted_draft_gives_its_items_back_and_a_cycles_draft_cannot_be_deleted(
    shop: Business,
) -> None:
    customer = await shop.customer()
    await shop.item(customer, 700)
    draft = await shop.stripe.invoices.create_async(
        {"customer": customer, "pending_invoice_items_behavior": "include"}
    )
    await shop.stripe.invoices.delete_async(draft.id)
    subscription = await shop.subscribe(customer, shop.use_price)
    await shop.to("2026-02-01T00:00:00")
    cycle = await shop.latest(subscription.id)
    assert amounts(cycle) == [700, 0]
    with pytest.raises(stripe.InvalidRequestError, match="one-off"):
        await shop.stripe.invoices.delete_async(cycle.id)


async def test_a_draft_finalizes_after_an_hour_only_if_it_advances(shop: Business) -> None:
    customer = await shop.customer()
    moving, standing = [
        await shop.stripe.invoices.create_async({"customer": customer, "auto_advance": advance})
        for advance in (True, False)
    ]
    assert moving.webhooks_delivered_at == moving.created
    assert moving.automatically_finalizes_at == moving.created + HOUR
    assert standing.automatically_finalizes_at is None
    await shop.item(customer, 700, invoice=moving.id)
    await shop.to(moving.created + HOUR)
    moving = await shop.stripe.invoices.retrieve_async(moving.id)
    assert (moving.status, moving.amount_paid) == ("paid", 700)
    assert moving.status_transitions.finalized_at == moving.created + HOUR
    assert (await shop.stripe.invoices.retrieve_async(standing.id)).status == "draft"


async def test_a_draft_finalized_by_hand_is_charged_behind_the_callers_back(
    shop: Business,
) -> None:
    final = await shop.invoice(await shop.customer(), 700, auto_advance=True)
    assert (final.status, final.amount_paid) == ("open", 0)
    with pytest.raises(stripe.InvalidRequestError, match="Invoice is already paid"):
        await shop.stripe.invoices.pay_async(final.id)
    assert len(await shop.events("invoice.paid")) == 1


async def test_an_update_holds_a_draft_back_or_sets_its_time(shop: Business) -> None:
    customer = await shop.customer()
    held, timed = [
        await shop.stripe.invoices.create_async({"customer": customer, "auto_advance": True})
        for _ in range(2)
    ]
    await shop.stripe.invoices.update_async(held.id, {"auto_advance": False})
    later = timed.created + 2 * DAY
    await shop.stripe.invoices.update_async(timed.id, {"automatically_finalizes_at": later})
    await shop.to(later - 1)
    assert (await shop.stripe.invoices.retrieve_async(timed.id)).status == "draft"
    await shop.to(later)
    assert (await shop.stripe.invoices.retrieve_async(timed.id)).status == "paid"
    assert (await shop.stripe.invoices.retrieve_async(held.id)).status == "draft"
    released = await shop.stripe.invoices.update_async(held.id, {"auto_advance": True})
    assert released.automatically_finalizes_at == later + HOUR


async def test_below_the_smallest_charge_it_is_paid_without_money_and_owed_with_the_next(
    shop: Business,
) -> None:
    customer = await shop.customer()
    small = await shop.invoice(customer, 49)
    assert (small.status, small.amount_due, small.amount_paid) == ("paid", 0, 0)
    assert (small.total, small.ending_balance) == (49, 49)
    assert (await shop.stripe.customers.retrieve_async(customer)).balance == 49
    following = await shop.invoice(customer, 50)
    assert (following.starting_balance, following.amount_due, following.ending_balance) == (
        49, 99, 0,
    )  # fmt: skip
    moves = await shop.stripe.customers.balance_transactions.list_async(customer)
    assert [(each.amount, each.type) for each in moves.data] == [
        (-49, "applied_to_invoice"),
        (49, "invoice_too_small"),
    ]


async def test_a_negative_total_becomes_credit_and_pays_the_next(shop: Business) -> None:
    customer = await shop.customer()
    credit = await shop.invoice(customer, -800)
    assert (credit.status, credit.total, credit.ending_balance) == ("paid", -800, -800)
    paid = await shop.invoice(customer, 600)
    assert (paid.status, paid.amount_due, paid.amount_paid, paid.ending_balance) == (
        "paid", 0, 0, -200,
    )  # fmt: skip
    with pytest.raises(stripe.InvalidRequestError, match="Invoice is already paid"):
        await shop.stripe.invoices.pay_async(paid.id)


async def test_a_void_invoice_gives_back_what_it_took_from_the_balance(shop: Business) -> None:
    customer = await shop.customer(balance=-300)
    invoice = await shop.invoice(customer, 1000)
    assert invoice.amount_due == 700
    void = await shop.stripe.invoices.void_invoice_async(invoice.id)
    assert (void.status, void.auto_advance) == ("void", False)
    assert (await shop.stripe.customers.retrieve_async(customer)).balance == -300
    with pytest.raises(stripe.InvalidRequestError, match="void"):
        await shop.stripe.invoices.pay_async(invoice.id)


async def test_what_is_written_off_can_still_be_paid(shop: Business) -> None:
    invoice = await shop.invoice(await shop.customer(), 1000)
    lost = await shop.stripe.invoices.mark_uncollectible_async(invoice.id)
    assert lost.status == "uncollectible"
    assert (await shop.stripe.invoices.pay_async(invoice.id)).status == "paid"
    types = [event.type for event in await shop.events("invoice.*")]
    assert types[-4:] == [
        "invoice.marked_uncollectible",
        "invoice.updated",
        "invoice.paid",
        "invoice.payment_succeeded",
    ]


async def test_tax_comes_on_top_of_each_line(shop: Business) -> None:
    customer = await shop.customer()
    await shop.stand.control("POST", "taxes", customer=customer, percent="8.875")
    for cents in (1000, 333):
        await shop.item(customer, cents)
    invoice = await shop.stripe.invoices.create_async(
        {"customer": customer, "pending_invoice_items_behavior": "include"}
    )
    # 88.75 and 29.55375
    assert [line.taxes[0].amount for line in invoice.lines.data if line.taxes] == [89, 30]
    assert (invoice.subtotal, invoice.total_excluding_tax, invoice.total) == (1333, 1333, 1452)
    assert [tax.amount for tax in invoice.total_taxes or []] == [119]


async def test_a_sent_invoice_falls_due_and_takes_what_the_customer_sends(shop: Business) -> None:
    customer = await shop.customer(None)
    subscription = await shop.subscribe(
        customer, shop.base, collection_method="send_invoice", days_until_due=45
    )
    invoice = await shop.latest(subscription.id)
    assert (subscription.status, invoice.status) == ("active", "open")
    assert invoice.due_date == invoice.created + 45 * DAY
    assert invoice.next_payment_attempt is None
    await shop.stand.control("POST", "transfers", invoice=invoice.id, amount=500)
    part = await shop.stripe.invoices.retrieve_async(invoice.id, {"expand": ["payments"]})
    assert (part.status, part.amount_paid, part.amount_remaining) == ("open", 500, 1500)
    assert part.payments is not None
    assert [(each.status, each.amount_paid) for each in part.payments.data] == [
        ("open", None), ("paid", 500),
    ]  # fmt: skip
    await shop.to(invoice.due_date)
    (overdue,) = await shop.events("invoice.overdue")
    assert overdue.created == invoice.due_date
    assert overdue.data.object["id"] == invoice.id
    await shop.stand.control("POST", "transfers", invoice=invoice.id, amount=1600)
    whole = await shop.stripe.invoices.retrieve_async(invoice.id)
    assert (whole.status, whole.amount_paid, whole.amount_overpaid) == ("paid", 2000, 100)
    assert (await shop.stripe.customers.retrieve_async(customer)).balance == -100


async def test_an_invoice_paid_elsewhere_charges_nobody(shop: Business) -> None:
    customer = await shop.customer("chargeDeclined")
    invoice = await shop.invoice(customer, 1000)
    paid = await shop.stripe.invoices.pay_async(invoice.id, {"paid_out_of_band": True})
    assert (paid.status, paid.amount_remaining) == ("paid", 0)
    assert await shop.events("payment_intent.*") == []


async def test_a_final_invoice_can_change_its_metadata_and_not_its_text(shop: Business) -> None:
    invoice = await shop.invoice(await shop.customer(), 1000)
    changed = await shop.stripe.invoices.update_async(invoice.id, {"metadata": {"a": "b"}})
    assert changed.metadata is not None
    assert changed.metadata["a"] == "b"
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.stripe.invoices.update_async(invoice.id, {"description": "x"})
    assert caught.value.code == "invoice_not_editable"


async def test_invoices_are_listed_by_what_they_are(shop: Business) -> None:
    one, other = await shop.customer(), await shop.customer()
    subscription = await shop.subscribe(one, shop.base)
    await shop.to("2026-01-02T00:00:00")
    invoice = await shop.invoice(one, 1000)
    await shop.invoice(other, 1000)
    listed = shop.stripe.invoices.list_async

    async def ids(**by: object) -> list[str]:
        return [each.id for each in (await listed(by)).data]  # type: ignore[arg-type]

    assert len(await ids(customer=one)) == 2
    assert await ids(customer=one, status="open") == [invoice.id]
    assert await ids(subscription=subscription.id) == [subscription.latest_invoice]
    assert await ids(customer=one, created={"gte": invoice.created}) == [invoice.id]


async def test_answers_are_expanded_on_request_and_nothing_else_can_be(shop: Business) -> None:
    subscription = await shop.subscribe(
        await shop.customer(), shop.base, expand=["latest_invoice.payments", "customer"]
    )
    assert isinstance(subscription.latest_invoice, stripe.Invoice)
    assert subscription.latest_invoice.payments is not None
    assert subscription.latest_invoice.payments.data[0].amount_paid == 2000
    assert isinstance(subscription.customer, stripe.Customer)
    with pytest.raises(stripe.InvalidRequestError, match="cannot be expanded"):
        await shop.stripe.subscriptions.retrieve_async(subscription.id, {"expand": ["owner"]})
