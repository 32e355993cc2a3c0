"""What can go wrong with a draft: it is late, missing, final too early, changed by somebody."""

import pytest

from tests.invoicing.stand import ANCHOR, CLOSE, DAY, HOUR, MINUTE, SECOND, Books


async def _close_but_for_the_last_steps(books: Books) -> str:
    """Have a period closed up to its items; returns the held draft."""
    await books.begin("tiered")
    await books.used(ANCHOR + DAY, 2)
    await books.close_at(1, CLOSE[:5])
    (invoice,) = await books.invoices()
    assert (invoice.status, invoice.auto_advance) == ("draft", False)
    return invoice.id


async def test_a_held_draft_stays_one_until_the_statement_is_on_it(books: Books) -> None:
    await books.begin("tiered")
    await books.used(ANCHOR + DAY, 2)
    await books.close_at(1, ("hold_draft",))
    await books.later(days=9)
    (invoice,) = await books.invoices()
    assert invoice.status == "draft"
    (known,) = await books.known()
    assert (known.status, known.purpose, known.ordinal) == ("draft", "period", 1)
    await books.all(CLOSE[1:], 1)
    assert [amount for _, amount in await books.bill(0)] == [200, -100]


async def test_an_invoice_that_was_final_too_early_is_completed_by_another(books: Books) -> None:
    await books.begin("tiered", after=3)
    await books.used(ANCHOR + SECOND, 0.1)  # on no metered line
    await books.used(ANCHOR + DAY, 2)
    end = await books.end_of(1)
    await books.go(end + 5 * HOUR)  # nobody held it
    await books.used(end - HOUR, 3)  # and this came after it was final
    await books.all(CLOSE, 1)
    first, second = await books.invoices()
    assert [amount for _, amount in await books.lines(first)] == [200]
    dates = "2026-11-30 to 2026-12-30"
    assert await books.lines(second) == [
        (f"Claude usage that the meter has missed, {dates}", 10),
        (f"Claude usage, {dates}: not yet invoiced", 300),
        ("Volume price for usage of $5.10", -255),
    ]
    assert first.total + second.total == (await books.statement(1)).due_cents == 255
    assert {row.ordinal for row in await books.known()} == {1}
    assert await books.notices() == ["draft_missed"]


async def test_a_subscription_that_somebody_cancelled_loses_no_usage(books: Books) -> None:
    await books.begin("usage")
    await books.used(ANCHOR + DAY, 2)
    account = await books.account()
    await books.go(ANCHOR + 9 * DAY)
    client = books.stripe.client()
    assert account.stripe_subscription_id is not None
    await client.v1.subscriptions.cancel_async(account.stripe_subscription_id)  # its use is dropped
    assert (await books.step("check_anchor")).words == "it has ended"
    await books.used(ANCHOR + 10 * DAY, 1)
    await books.close_at(1)
    (invoice,) = await books.invoices()
    assert [amount for _, amount in await books.lines(invoice)] == [300]
    assert invoice.status == "paid"
    # The next period has a subscription of its own again.
    await books.used(books.now + MINUTE, 4)
    await books.close_at(2)
    assert (await books.bill(1))[0][1] == 400
    assert await books.notices() == ["anchor_drift", "no_draft"]


async def test_a_missing_line_keeps_the_invoice_a_draft_and_is_told_once(books: Books) -> None:
    draft = await _close_but_for_the_last_steps(books)
    client = books.stripe.client()
    items = await client.v1.invoice_items.list_async({"invoice": draft})
    await client.v1.invoice_items.delete_async(items.data[0].id)
    for _ in range(3):
        held = await books.step("finalize_invoice", 1)
        assert "should be -100 cents and is missing" in held.words
        assert held.again_at == books.now + HOUR
        await books.go(held.again_at)
    assert await books.notices() == ["invoice_differs"]
    assert (await books.invoices())[0].status == "draft"
    assert (await books.account()).invoiced_until == ANCHOR
    # Whoever looks into it has the line put back by the step before.
    await books.later(days=1)
    await books.all(CLOSE[4:], 1)
    assert (await books.invoices())[0].status == "paid"


async def test_a_line_over_another_amount_holds_the_draft(books: Books) -> None:
    draft = await _close_but_for_the_last_steps(books)
    client = books.stripe.client()
    items = await client.v1.invoice_items.list_async({"invoice": draft})
    (item,) = items.data
    assert item.metadata is not None
    await client.v1.invoice_items.create_async(
        {
            "customer": books.name,
            "invoice": draft,
            "amount": -1,
            "currency": "usd",
            "metadata": item.metadata.to_dict(),
        }
    )
    held = await books.step("finalize_invoice", 1)
    assert "should be -100 cents and is -100 and -1" in held.words


async def test_usage_that_nobody_knows_of_holds_the_draft(books: Books) -> None:
    await _close_but_for_the_last_steps(books)
    await books.stripe.client().v2.billing.meter_events.create_async(
        {
            "event_name": "tallystick_charge_nano_usd",
            "identifier": "somebody-else",
            "timestamp": (ANCHOR + 2 * DAY).isoformat().replace("+00:00", "Z"),
            "payload": {"stripe_customer_id": books.name, "value": "1"},
        }
    )
    held = await books.step("finalize_invoice", 1)
    assert "2,000,000,001 units and 200 cents, the statement's 2,000,000,000 and 200" in held.words
    assert await books.notices() == ["invoice_differs"]


async def test_a_line_that_a_person_has_added_is_charged_and_told(books: Books) -> None:
    draft = await _close_but_for_the_last_steps(books)
    await books.stripe.client().v1.invoice_items.create_async(
        {
            "customer": books.name, "invoice": draft, "amount": 700, "currency": "usd",
            "description": "A workshop",
        }
    )  # fmt: skip
    await books.through("finalize_invoice", 1)
    (invoice,) = await books.invoices()
    assert (invoice.status, invoice.total) == ("paid", 800)
    notice = await books.notice("invoice_has_more")
    assert "A workshop (700 cents)" in notice.message


async def test_a_boundary_that_has_moved_at_stripe_is_told_once_a_period(books: Books) -> None:
    await books.begin("usage")
    assert (await books.step("check_anchor")).words == "Stripe's period is ours"
    await books.sql("UPDATE billing_accounts SET anchor = anchor - interval '3 hours'")
    for _ in range(3):
        drift = await books.step("check_anchor")
        assert drift.words.startswith("Stripe's period is 2026-11-30T12:00:00+00:00 to 2026-12-30")
        assert drift.again_at == books.now + HOUR
        await books.go(drift.again_at)
    assert await books.notices() == ["anchor_drift"]
    await books.go(await books.end_of(1) + 10 * MINUTE)
    waiting = await books.step("hold_draft", 1)  # Stripe's boundary is three hours away
    assert waiting.again_at == books.now + 5 * MINUTE
    await books.through("hold_draft", 1)
    (invoice,) = await books.invoices()
    assert invoice.status == "draft"


async def test_a_period_that_stripe_has_not_turned_yet_is_no_drift(books: Books) -> None:
    await books.begin("usage")
    end = await books.end_of(1)
    await books.go(end - SECOND)
    turning = await books.step("check_anchor", now=end + MINUTE)
    assert turning.again_at == end + 11 * MINUTE
    assert await books.notices() == []


@pytest.mark.parametrize("status", ["open", "void"])
async def test_a_draft_that_a_person_made_final_is_not_charged_twice(
    books: Books, status: str
) -> None:
    draft = await _close_but_for_the_last_steps(books)
    client = books.stripe.client()
    await client.v1.invoices.finalize_invoice_async(draft, {"auto_advance": False})
    if status == "void":
        await client.v1.invoices.void_invoice_async(draft)
    await books.through("finalize_invoice", 1)
    assert [invoice.id for invoice in await books.invoices()] == [draft]
    (known,) = await books.known()
    assert known.status == status
    assert (await books.account()).invoiced_until == await books.end_of(1)
