"""What Stripe says of an invoice, as the ledger keeps it: failures in words, money that moved."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import stripe

from activities import payment_words
from tallystick.ledger import customers, invoices
from tallystick.ledger.account_tables import Invoice
from tallystick.ledger.database import Ledger
from tallystick.ledger.invoices import Seen
from tallystick.ledger.tables import Customer
from tests.invoicing.stand import DAY, Books

AT = datetime(2026, 12, 30, 12, tzinfo=UTC)
DRAFT = Seen(
    stripe_invoice_id="in_1",
    status="draft",
    currency="usd",
    total_cents=100,
    tax_cents=0,
    amount_due_cents=100,
    amount_paid_cents=0,
    created_at=AT,
    finalized_at=None,
    due_at=None,
    paid_at=None,
    failing=False,
    failure=None,
    attempt_count=0,
    next_payment_attempt=None,
    hosted_url=None,
    checked_at=AT,
)


def _seen(minutes: float, status: str, **more: Any) -> Seen:
    return replace(DRAFT, status=status, checked_at=AT + timedelta(minutes=minutes), **more)


async def _billed(books: Books, dollars: float = 2) -> Invoice:
    """Have a period of so many dollars closed, and its invoice looked at."""
    await books.used(books.now + DAY, dollars)
    ordinal = len(await books.invoices()) + 1
    await books.close_at(ordinal)
    return await _look(books)


async def _look(books: Books) -> Invoice:
    (*_, last) = await books.known()
    await books.step("look_at_invoices", last.stripe_invoice_id)
    (*_, last) = await books.known()
    return last


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ("pm_card_chargeDeclinedExpiredCard", "the card has expired"),
        ("pm_card_chargeDeclinedInsufficientFunds", "the card has insufficient funds"),
        ("pm_card_authenticationRequired", "the bank wants the cardholder to confirm the payment"),
        ("pm_card_chargeDeclinedLostCard", "the bank declined the card without a reason"),
        (None, "there is no card or other payment method to charge"),
    ],
)
async def test_a_failed_payment_is_known_with_its_reason_and_since_when(
    books: Books, card: str | None, words: str
) -> None:
    await books.begin("usage", card=card)
    known = await _billed(books)
    assert known.failure is not None
    assert known.failure.startswith(words)
    assert known.failed_at == books.now
    assert (known.status, known.attempt_count) == ("open", 1)
    assert (known.amount_due_cents, known.amount_paid_cents) == (200, 0)
    assert known.next_payment_attempt == books.now + DAY
    assert known.hosted_url


@pytest.mark.parametrize(
    ("code", "decline_code", "words"),
    [
        ("card_declined", "fraudulent", "the bank declined the card without a reason"),
        ("card_declined", "stolen_card", "the bank declined the card without a reason"),
        ("card_declined", "a code of next year", "the bank declined the card without a reason"),
        ("expired_card", None, "the card has expired"),
        ("card_declined", "try_again_later", "the bank could not process the payment just then"),
        (None, None, "the payment did not go through"),
    ],
)
def test_a_decline_is_told_in_words_and_nothing_that_stripe_keeps_from_customers(
    code: str | None, decline_code: str | None, words: str
) -> None:
    body = {"error": {"code": code, "decline_code": decline_code}}
    error = stripe.CardError("No.", None, code, http_status=402, json_body=body)
    assert payment_words.of_error(error).startswith(words)


async def test_a_failure_dates_from_the_first_and_ends_with_the_payment(books: Books) -> None:
    await books.begin("usage", card="pm_card_chargeDeclined")
    first = await _billed(books)
    assert first.failed_at is not None
    await books.later(days=4)  # Stripe tries again meanwhile
    later = await _look(books)
    assert later.failed_at == first.failed_at
    assert later.attempt_count == 3
    client = books.stripe.client()
    card = await client.v1.payment_methods.attach_async("pm_card_visa", {"customer": books.name})
    await client.v1.customers.update_async(
        books.name, {"invoice_settings": {"default_payment_method": card.id}}
    )
    await books.later(days=10)
    paid = await _look(books)
    assert (paid.status, paid.amount_paid_cents) == ("paid", 200)
    assert (paid.failed_at, paid.failure, paid.next_payment_attempt) == (None, None, None)
    assert paid.paid_at is not None


async def test_a_part_that_was_paid_shows_and_the_rest_is_open(books: Books) -> None:
    await books.begin("usage")
    await books.stripe.control("POST", "outcomes", customer=books.name, partial=50)
    known = await _billed(books)
    assert (known.status, known.amount_due_cents, known.amount_paid_cents) == ("open", 200, 50)
    assert known.failed_at is not None


async def test_paid_without_money_is_told_apart(books: Books) -> None:
    await books.begin("usage")
    small = await _billed(books, 0.20)
    assert (small.status, small.total_cents, small.amount_paid_cents) == ("paid", 20, 0)
    client = books.stripe.client()
    await client.v1.customers.update_async(books.name, {"balance": -500})
    credited = await _billed(books)
    assert (credited.status, credited.amount_paid_cents) == ("paid", 0)
    await client.v1.customers.update_async(books.name, {"balance": 0})
    await books.stripe.control(
        "POST", "outcomes", customer=books.name, decline_code="insufficient_funds"
    )
    await _billed(books)
    (*_, last) = await books.invoices()
    await client.v1.invoices.pay_async(last.id, {"paid_out_of_band": True})
    assert (await _look(books)).status == "paid"
    normal = await _billed(books)
    assert (normal.status, normal.amount_paid_cents) == ("paid", 200)
    told = [n for n in await books.all_notices() if n.kind == "paid_without_money"]
    assert [notice.message.partition("collected: ")[2] for notice in told] == [
        "it is below the least that Stripe charges, and is owed with the next invoice.",
        "the customer's credit balance at Stripe paid it.",
        "it was marked as paid outside Stripe.",
    ]


async def test_tax_and_currency_are_stripes(books: Books) -> None:
    await books.begin("usage")
    await books.stripe.control("POST", "taxes", customer=books.name, percent=19)
    known = await _billed(books)
    assert (known.currency, known.total_cents, known.tax_cents) == ("usd", 238, 38)
    assert known.amount_paid_cents == 238


async def test_an_invoice_that_is_not_ours_is_not_asked_for(books: Books) -> None:
    await books.begin("usage")
    assert (await books.step("look_at_invoices", "in_theirs")).words == "in_theirs is not known"
    assert (await books.stripe.totals())["calls"].get("GET /v1/invoices/{id}", 0) == 0


LOOKS = [_seen(0, "draft"), _seen(5, "open", finalized_at=AT), _seen(9, "open", failing=True)]


@pytest.mark.parametrize(
    ("written", "late", "holds"),
    [
        # An older look never takes the place of a newer one.
        ([LOOKS[2], LOOKS[1]], LOOKS[0], "open"),
        # Of one instant, a draft was seen before what it became.
        ([_seen(5, "open")], _seen(5, "draft"), "open"),
        # Paid and void are for ever, whenever they were seen.
        ([_seen(5, "paid")], _seen(9, "open"), "paid"),
        ([_seen(5, "void")], _seen(9, "open"), "void"),
        ([_seen(9, "open")], _seen(5, "paid"), "paid"),
    ],
)
async def test_looks_that_overtake_each_other_lead_to_one_state(
    ledger: Ledger, written: list[Seen], late: Seen, holds: str
) -> None:
    async with ledger.begin() as tx:
        await customers.add(tx, Customer(customer_id="acme", name="Acme", plan="usage"))
    for seen in [*written, late]:
        async with ledger.begin() as tx:
            row = await invoices.note(tx, seen, "acme", purpose="period", ordinal=1)
    assert row.status == holds
    newest = max((each for each in written), key=lambda each: each.checked_at)
    if holds == "open":
        assert row.checked_at == newest.checked_at


async def test_the_first_failure_is_what_counts_until_all_is_paid(ledger: Ledger) -> None:
    async with ledger.begin() as tx:
        await customers.add(tx, Customer(customer_id="acme", name="Acme", plan="usage"))
    failed: list[datetime | None] = []
    for seen in (
        _seen(0, "open"),
        _seen(1, "open", failing=True, failure="no funds"),
        _seen(60, "open", failing=True, failure="no funds"),
        _seen(61, "paid"),
    ):
        async with ledger.begin() as tx:
            row = await invoices.note(tx, seen, "acme", purpose="period", ordinal=1)
        failed.append(row.failed_at)
    first = AT + timedelta(minutes=1)
    assert failed == [None, first, first, None]
