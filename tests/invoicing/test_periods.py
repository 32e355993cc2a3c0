"""Whole periods of each model: what is on Stripe's invoices is what the statements say."""

from datetime import timedelta

import pytest

from tests.invoicing.stand import (
    ANCHOR,
    CLOSE,
    CLOSE_PREPAID,
    DAY,
    END,
    HOUR,
    MINUTE,
    SECOND,
    Books,
)

BASE = "1 × Base fee"


async def test_usage_is_invoiced_by_the_meter_and_what_it_missed_by_an_item(books: Books) -> None:
    await books.begin("usage", after=7)
    assert await books.invoices() == []  # nothing is paid in advance
    await books.used(ANCHOR + SECOND, 0.05)  # before the subscription was made
    await books.used(ANCHOR + 7 * SECOND, 1.25)
    end = await books.end_of(1)
    await books.go(end + MINUTE)
    await books.used(end - SECOND, 2)
    await books.used(end, 4)  # in the same minute, in the next period
    await books.close_at(1)
    (invoice,) = await books.invoices()
    assert await books.lines(invoice) == [
        ("Claude usage", 325),
        ("Claude usage that the meter has missed, 2026-11-30 to 2026-12-30", 5),
    ]
    assert (invoice.status, invoice.amount_paid) == ("paid", 330)
    assert (await books.statement(1)).due_cents == 330
    assert (await books.account()).invoiced_until == end
    await books.step("look_at_invoices")
    (known,) = await books.known()
    assert (known.purpose, known.ordinal, known.status) == ("period", 1, "paid")
    assert (known.total_cents, known.amount_paid_cents) == (330, 330)
    assert await books.notices() == []


async def test_boundaries_are_ours_through_short_months(books: Books) -> None:
    await books.begin("usage", after=1)
    for ordinal in range(1, 5):
        end = await books.end_of(ordinal)
        await books.used(end - DAY, 1)
        await books.close_at(ordinal)
        assert (await books.account()).invoiced_until == end
    ends = [await books.end_of(ordinal) for ordinal in range(1, 5)]
    assert [f"{end:%m-%d}" for end in ends] == ["12-30", "01-30", "02-28", "03-30"]
    assert [await books.bill(n) for n in range(4)] == [[("Claude usage", 100)]] * 4
    assert await books.notices() == []


async def test_a_base_fee_is_paid_in_advance_and_overage_afterwards(books: Books) -> None:
    await books.begin("base", after=20)
    (opening,) = await books.invoices()
    assert await books.lines(opening) == [("Base fee of base, 2026-11-30 to 2026-12-30", 4900)]
    assert (opening.status, opening.amount_paid) == ("paid", 4900)
    await books.used(ANCHOR + DAY, 12.34)
    await books.close_at(1)
    # Stripe's line for the fee of the next period, ours for the usage of this one.
    assert await books.bill(1) == [
        (BASE, 4900),
        ("Claude usage, 2026-11-30 to 2026-12-30", 1234),
    ]
    assert (await books.statement(1)).due_cents == 4900 + 1234
    assert [row.purpose for row in await books.known()] == ["opening", "period"]
    assert await books.notices() == []


async def test_another_fee_is_charged_from_the_next_invoice_on(books: Books) -> None:
    await books.begin("base")
    await books.go(ANCHOR + 15 * DAY)
    await books.move(books.now, "plus")
    assert (await books.step("align_subscription")).words.endswith("goes on")
    assert len(await books.invoices()) == 1  # Stripe prorates nothing, the statement does
    await books.close_at(1)
    # Half of the period at each fee: 24.50 back, 49.50 on top.
    assert sorted(amount for _, amount in await books.bill(1)) == [-2450, 4950, 9900]
    assert (await books.statement(1)).due_cents == 9900 + 2500
    assert (await books.account()).aligned_plan == "plus"
    assert await books.notices() == []


async def test_a_move_of_the_last_minute_is_made_up_for_by_an_item(books: Books) -> None:
    await books.begin("base")
    end = await books.end_of(1)
    await books.move(end - MINUTE, "plus")  # and Stripe was not told before it turned
    await books.close_at(1)
    lines = await books.bill(1)
    assert (BASE, 4900) in lines
    assert ("Base fee of plus, 2026-12-30 to 2027-01-30: difference", 5000) in lines
    (_, invoice) = await books.invoices()
    assert invoice.total == (await books.statement(1)).due_cents
    await books.close_at(2)
    assert (BASE, 9900) in await books.bill(2)
    assert await books.notices() == []


async def test_a_customer_moves_through_all_models_and_each_period_is_collected_once(
    books: Books,
) -> None:
    await books.begin("usage")
    await books.used(ANCHOR + DAY, 1)
    await books.move(ANCHOR + 2 * DAY, "base")
    assert (await books.step("align_subscription")).words.endswith("ends with the period")
    await books.close_at(1)
    assert await books.bill(0) == [("Claude usage", 100)]
    assert await books.bill(1) == [("Base fee of base, 2026-12-30 to 2027-01-30", 4900)]
    second = await books.end_of(1)
    await books.used(second + DAY, 2)
    await books.move(second + 2 * DAY, "credit")
    await books.step("align_subscription")
    await books.close_at(2)
    # The subscription is gone, so the overage has an invoice of its own.
    assert await books.bill(2) == [("Claude usage, 2026-12-30 to 2027-01-30", 200)]
    assert (await books.account()).stripe_subscription_id is None
    third = await books.end_of(2)
    await books.used(third + DAY, 3)
    await books.move(third + 2 * DAY, "usage")
    await books.close_at(3, CLOSE_PREPAID)
    fourth = await books.end_of(3)
    await books.used(books.now + HOUR, 4)
    await books.close_at(4)
    (*_, last) = await books.invoices()
    assert await books.lines(last) == [("Claude usage", 400)]
    assert len(await books.invoices()) == 4
    assert fourth == (await books.statement(4)).period_start
    assert await books.notices() == []


async def test_usage_of_the_moments_before_a_new_subscription_is_collected(books: Books) -> None:
    await books.begin("base")
    await books.move(ANCHOR + DAY, "usage")
    await books.step("align_subscription")
    end = await books.end_of(1)
    await books.go(end + MINUTE)
    await books.used(end + SECOND, 3)
    await books.close_at(1)
    await books.used(books.now + SECOND, 1)
    await books.close_at(2)
    (*_, last) = await books.invoices()
    assert [amount for _, amount in await books.lines(last)] == [100, 300]
    assert await books.notices() == []


async def test_an_account_that_ends_at_once_is_invoiced_to_its_end(books: Books) -> None:
    await books.begin("usage")
    await books.used(ANCHOR + DAY, 1)
    end = ANCHOR + 10 * DAY + 30 * SECOND  # between two minutes
    await books.go(end)
    await books.cancel(end)
    await books.used(end + SECOND, 0.5)  # asked for before the end
    await books.close_at(1, END)
    (invoice,) = await books.invoices()
    assert await books.lines(invoice) == [("Claude usage", 150)]
    assert invoice.status == "paid"
    account = await books.account()
    assert (account.invoiced_until, account.ended_at) == (end, books.now)
    subscriptions = await books.stripe.client().v1.subscriptions.list_async({"status": "all"})
    assert [each.status for each in subscriptions.data] == ["canceled"]
    assert await books.notices() == []


@pytest.mark.parametrize("told", [True, False], ids=["Stripe was told", "Stripe was not told"])
@pytest.mark.parametrize("plan", ["usage", "base"])
async def test_an_account_that_ends_with_its_period_pays_for_no_further_one(
    books: Books, *, plan: str, told: bool
) -> None:
    await books.begin(plan)
    await books.used(ANCHOR + DAY, 2)
    await books.cancel(await books.end_of(1))
    if told:
        await books.step("align_subscription")
    await books.close_at(1, END)
    (*_, invoice) = await books.invoices()
    assert (invoice.total, invoice.status) == (200, "paid")
    lines = sorted(amount for _, amount in await books.lines(invoice))
    # Stripe has charged for the next period already where nobody told it.
    assert lines == ([-4900, 200, 4900] if plan == "base" and not told else [200])
    assert (await books.account()).ended_at is not None
    count = len(await books.invoices())
    await books.later(days=60)
    assert len(await books.invoices()) == count
    assert await books.notices() == []


async def test_terms_of_payment_are_stripes_due_date(books: Books) -> None:
    await books.begin("terms")
    await books.used(ANCHOR + DAY, 1)
    await books.close_at(1)
    (known,) = await books.known()
    assert known.status == "open"
    assert known.due_at is not None
    assert known.finalized_at is not None
    assert known.due_at - known.finalized_at == timedelta(days=60)
    assert known.failed_at is None
    await books.move(books.now, "usage")
    await books.step("align_subscription")
    await books.used(books.now, 1)
    await books.close_at(2)
    (_, second) = await books.invoices()
    assert (second.collection_method, second.status) == ("charge_automatically", "paid")


async def test_a_period_without_usage_is_closed_too(books: Books) -> None:
    await books.begin("usage")
    await books.close_at(1)
    (invoice,) = await books.invoices()
    assert (invoice.status, invoice.total) == ("paid", 0)
    assert (await books.account()).invoiced_until == await books.end_of(1)
    assert await books.notices() == []


async def test_steps_that_nothing_is_left_for_say_so(books: Books) -> None:
    await books.begin("credit")
    assert (await books.step("align_subscription")).words == "no subscription is to be told"
    assert (await books.step("check_anchor")).again_at is None
    assert (await books.step("verify_metering", 1)).words.startswith("no price")
    assert await books.invoices() == []
    assert set(CLOSE) > {"hold_draft"}
