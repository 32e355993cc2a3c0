"""Steps that are killed, lose their answers, or come again after days: one set of lines, always."""

import asyncio
from datetime import timedelta

import pytest
from temporalio.exceptions import ApplicationError

from tests.invoicing.stand import (
    ANCHOR,
    CLOSE,
    DAY,
    MINUTE,
    OPEN,
    Books,
    Interrupted,
    invoicing_stand,
    killed_everywhere,
)

CALLS = {
    "open_subscription": (
        "POST /v1/subscriptions?",
        "POST /v1/subscriptions/",
        "POST /v1/invoices?",
        "POST /v1/invoiceitems",
        "/finalize",
    ),
    "hold_draft": ("POST /v1/invoices/in_",),
    "put_on_invoice": ("POST /v1/invoiceitems",),
    "finalize_invoice": ("/finalize",),
}
"""What the steps change at Stripe, in their order."""
LINES = [
    [("Base fee of base, 2026-11-30 to 2026-12-30", 4900)],
    [("1 × Base fee", 4900), ("Claude usage, 2026-11-30 to 2026-12-30", 1234)],
]


async def _disturbed(books: Books, name: str, subject: int, fault: str, pause: float) -> None:
    """Have each change that a step makes fail once, and the step repeated after so many hours."""
    for call in CALLS.get(name, ()):
        await books.stripe.fault(fault, match=call)
        with pytest.raises(ApplicationError, match="Stripe") as caught:
            await books.through(name, subject)
        assert not caught.value.non_retryable
        await books.later(hours=pause)
    await books.through(name, subject)


@pytest.mark.parametrize(
    ("fault", "pause"), [("no_answer", 0), ("no_answer", 25), ("server_error", 0), ("reset", 25)]
)
async def test_whatever_happens_to_an_answer_there_is_one_set_of_lines(
    books: Books, fault: str, pause: float
) -> None:
    await books.begin("base", steps=())
    for name in OPEN:
        await _disturbed(books, name, 0, fault, pause)
    await books.used(books.now, 12.34)
    await books.go(await books.end_of(1) + 10 * MINUTE)
    for name in CLOSE[:6]:
        # Held first: an hour later Stripe would make it final by itself.
        await _disturbed(books, name, 1, fault, 0 if name == "hold_draft" else pause)
    assert [await books.lines(invoice) for invoice in await books.invoices()] == LINES
    await books.step("look_at_invoices")
    assert [row.status for row in await books.known()] == ["paid", "paid"]
    assert (await books.account()).invoiced_until == await books.end_of(1)
    assert await books.notices() == []


async def test_killed_before_any_transaction_a_step_is_finished_by_its_repetition(
    database_url: str,
) -> None:
    ledger = Interrupted(database_url)
    async with invoicing_stand(ledger) as books:
        await books.begin("base", steps=())

        for name in OPEN:
            await killed_everywhere(books, ledger, name, 0)
        await books.used(books.now + DAY, 12.34)
        await books.go(await books.end_of(1) + 10 * MINUTE)
        for name in CLOSE:
            await killed_everywhere(books, ledger, name, 1)
        assert [await books.lines(invoice) for invoice in await books.invoices()] == LINES
        assert (await books.account()).invoiced_until == await books.end_of(1)
        assert await books.notices() == []
    await ledger.close()


async def test_every_step_can_be_repeated_at_once_and_after_days(books: Books) -> None:
    await books.begin("base")
    await books.used(ANCHOR + DAY, 12.34)
    await books.go(await books.end_of(1) + 10 * MINUTE)
    for number, name in enumerate(CLOSE):
        await books.through(name, 1)
        await books.later(hours=26)
        for again in CLOSE[: number + 1]:
            await books.through(again, 1)
    for name in OPEN:
        await books.through(name, 0)
    assert [await books.lines(invoice) for invoice in await books.invoices()] == LINES
    assert await books.notices() == []


@pytest.mark.parametrize("step", ["open_subscription", "hold_draft", "put_on_invoice"])
async def test_a_stripe_that_wants_less_is_asked_again_when_it_says(
    books: Books, step: str
) -> None:
    await books.begin("base")
    await books.go(await books.end_of(1) + 10 * MINUTE)
    for name in ("close_books", "settle_period"):
        await books.through(name, 1)
    await books.stripe.fault("rate_limited", retry_after=7)
    with pytest.raises(ApplicationError) as caught:
        await books.step(step, 1)
    assert (caught.value.type, caught.value.non_retryable) == ("StripeRateLimited", False)
    assert caught.value.next_retry_delay == timedelta(seconds=7)


async def test_what_stripe_refuses_for_good_is_parked_in_its_words(books: Books) -> None:
    await books.begin("base", steps=())
    await books.stripe.fault("refused", match="POST /v1/subscriptions?", message="Not here.")
    with pytest.raises(ApplicationError, match="Not here") as caught:
        await books.step("open_subscription", 0)
    assert (caught.value.type, caught.value.non_retryable) == ("StripeRejected", True)


async def test_a_customer_that_stripe_does_not_know_is_parked(books: Books) -> None:
    await books.begin("base", steps=())
    await books.sql("UPDATE customers SET stripe_customer_id = NULL")
    with pytest.raises(ApplicationError) as caught:
        await books.step("open_subscription", 0)
    assert caught.value.type == "CustomerUnmapped"


async def test_two_workers_at_one_step_make_it_once(books: Books) -> None:
    """The first was given up for dead and is not."""
    await books.begin("base")
    await books.used(ANCHOR + DAY, 12.34)
    await books.go(await books.end_of(1) + 10 * MINUTE)
    for name in CLOSE:
        results = await asyncio.gather(
            books.through(name, 1), books.through(name, 1), return_exceptions=True
        )
        failures = [each for each in results if isinstance(each, BaseException)]
        assert len(failures) < 2, failures
    assert [await books.lines(invoice) for invoice in await books.invoices()] == LINES
