"""Credit that is bought: money and credit come together, once, or neither does."""

import pytest
from temporalio.exceptions import ApplicationError

from tallystick.ledger import top_ups, wallet
from tallystick.ledger.account_tables import TopUp
from tests.invoicing.stand import (
    HOUR,
    Books,
    Interrupted,
    invoicing_stand,
    killed_everywhere,
)

FIFTY = 50 * 10**9


async def _asked(books: Books, card: str | None = "pm_card_visa") -> int:
    """Have a customer with that card ask for $50."""
    await books.begin("credit", card=card)
    async with books.ledger.begin() as tx:
        number = await top_ups.open_top_up(tx, books.customer, FIFTY, automatic=True, at=books.now)
    assert number is not None
    return number


async def _top_up(books: Books, number: int) -> TopUp:
    async with books.ledger.begin() as tx:
        found = await top_ups.get(tx, number)
    assert found is not None
    return found


async def _balance(books: Books) -> int:
    async with books.ledger.begin() as tx:
        return await wallet.balance(tx, books.customer, books.now)


async def _paid(books: Books) -> list[tuple[str, int]]:
    """Return the state of each of the customer's invoices, and what was paid on it."""
    return [(invoice.status or "", invoice.amount_paid) for invoice in await books.invoices()]


async def test_credit_that_is_paid_is_granted_once(books: Books) -> None:
    number = await _asked(books)
    assert (await books.step("collect_top_up", number)).words == "paid, and granted as credit"
    assert await books.bill(0) == [("Prepaid credit for Claude usage", 5000)]
    assert await _balance(books) == FIFTY
    assert (await _top_up(books, number)).granted_at == books.now
    await books.later(days=3)
    assert (await books.step("collect_top_up", number)).words == "the top-up is closed"
    (known,) = await books.known()
    await books.step("look_at_invoices", known.stripe_invoice_id)
    assert await _balance(books) == FIFTY
    assert await _paid(books) == [("paid", 5000)]
    assert known.purpose == "top_up"


@pytest.mark.parametrize(
    ("card", "why"),
    [
        ("pm_card_chargeDeclinedInsufficientFunds", "the card has insufficient funds"),
        ("pm_card_chargeDeclinedExpiredCard", "the card has expired"),
        ("pm_card_authenticationRequired", "the bank wants the cardholder to confirm the payment"),
        (None, "there is no card or other payment method to charge"),
    ],
)
async def test_credit_that_is_not_paid_is_given_up_and_can_be_paid_no_more(
    books: Books, card: str | None, why: str
) -> None:
    number = await _asked(books, card)
    assert (await books.step("collect_top_up", number)).words == f"given up: {why}"
    top_up = await _top_up(books, number)
    assert (top_up.failed_at, top_up.granted_at, top_up.failure) == (books.now, None, why)
    assert await _balance(books) == 0
    assert await _paid(books) == [("void", 0)]
    notice = await books.notice("top_up_failed")
    assert (notice.audience, why in notice.message) == ("customer", True)
    await books.later(days=30)
    await books.step("collect_top_up", number)
    assert await _paid(books) == [("void", 0)]
    assert await books.notices() == ["top_up_failed"]


CALLS = ("POST /v1/invoices?", "POST /v1/invoiceitems", "/finalize", "/pay")


@pytest.mark.parametrize(
    ("fault", "pause"), [("no_answer", 0), ("no_answer", 25), ("server_error", 0), ("reset", 25)]
)
@pytest.mark.parametrize("card", ["pm_card_visa", "pm_card_chargeDeclined"])
async def test_whatever_happens_to_an_answer_money_and_credit_agree(
    books: Books, card: str, fault: str, pause: float
) -> None:
    number = await _asked(books, card)
    for call in CALLS:
        await books.stripe.fault(fault, match=call)
        with pytest.raises(ApplicationError) as caught:
            await books.step("collect_top_up", number)
        assert caught.value.type in {"StripeNoAnswer", "StripeUnavailable"}
        await books.later(hours=pause)
    await books.step("collect_top_up", number)
    good = card == "pm_card_visa"
    assert await _paid(books) == [("paid", 5000) if good else ("void", 0)]
    assert await _balance(books) == (FIFTY if good else 0)
    assert len(await books.bill(0)) == 1


@pytest.mark.parametrize("card", ["pm_card_visa", "pm_card_chargeDeclined"])
async def test_killed_before_any_transaction_it_is_finished_by_its_repetition(
    database_url: str, card: str
) -> None:
    ledger = Interrupted(database_url)
    async with invoicing_stand(ledger) as books:
        number = await _asked(books, card)
        await killed_everywhere(books, ledger, "collect_top_up", number)
        good = card == "pm_card_visa"
        assert await _paid(books) == [("paid", 5000) if good else ("void", 0)]
        assert await _balance(books) == (FIFTY if good else 0)
    await ledger.close()


async def test_a_void_whose_answer_was_lost_is_found_made(books: Books) -> None:
    number = await _asked(books, "pm_card_chargeDeclined")
    await books.stripe.fault("no_answer", match="/void")
    with pytest.raises(ApplicationError):
        await books.step("collect_top_up", number)
    assert (await _top_up(books, number)).failed_at is None
    await books.later(days=2)
    await books.step("collect_top_up", number)
    assert (await _top_up(books, number)).failed_at == books.now


async def test_a_payment_that_comes_before_the_void_is_granted(books: Books) -> None:
    number = await _asked(books, "pm_card_chargeDeclined")
    await books.stripe.fault("reset", match="/void")
    with pytest.raises(ApplicationError):
        await books.step("collect_top_up", number)
    (invoice,) = await books.invoices()
    await books.stripe.control("POST", "transfers", invoice=invoice.id, amount=5000)
    assert (await books.step("collect_top_up", number)).words == "paid, and granted as credit"
    assert await _balance(books) == FIFTY
    assert await books.notices() == []


async def test_an_event_that_is_quicker_grants_and_the_step_finds_it(books: Books) -> None:
    number = await _asked(books)
    await books.stripe.fault("no_answer", match="/pay")
    with pytest.raises(ApplicationError):
        await books.step("collect_top_up", number)
    (known,) = await books.known()
    await books.step("look_at_invoices", known.stripe_invoice_id)
    assert await _balance(books) == FIFTY
    assert (await books.step("collect_top_up", number)).words == "the top-up is closed"


async def test_an_invoice_that_a_person_voided_gives_the_top_up_up(books: Books) -> None:
    number = await _asked(books)
    await books.stripe.fault("reset", match="/pay")
    with pytest.raises(ApplicationError):
        await books.step("collect_top_up", number)
    (invoice,) = await books.invoices()
    await books.stripe.client().v1.invoices.void_invoice_async(invoice.id)
    assert (await books.step("collect_top_up", number)).words == "given up: its invoice was voided"


async def test_a_payment_that_takes_its_time_is_waited_for(books: Books) -> None:
    number = await _asked(books, "pm_card_chargeDeclined")
    await books.stripe.fault("reset", match="/void")
    with pytest.raises(ApplicationError):
        await books.step("collect_top_up", number)
    (intent,) = books.stripe.account.table("payment_intent").values()
    intent["status"] = "processing"  # as with a debit, which takes days
    waiting = await books.step("collect_top_up", number)
    assert waiting.again_at == books.now + HOUR
    assert await _paid(books) == [("open", 0)]


async def test_a_top_up_of_a_customer_unknown_to_stripe_is_parked(books: Books) -> None:
    number = await _asked(books)
    await books.sql("UPDATE customers SET stripe_customer_id = NULL")
    with pytest.raises(ApplicationError) as caught:
        await books.step("collect_top_up", number)
    assert caught.value.type == "CustomerUnmapped"
