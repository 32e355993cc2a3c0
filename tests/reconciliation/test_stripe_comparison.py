"""Records, meter events and what Stripe counts, laid side by side over real HTTP and PostgreSQL."""

from collections.abc import AsyncGenerator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text
from temporalio.exceptions import ApplicationError

from activities.stripe_hours import MOST_TRIES
from tallystick.errors import STRIPE_RATE_LIMITED
from tallystick.ledger import accounts, collection_corrections, discrepancies, outbox
from tallystick.ledger.database import Ledger
from tests.reconciliation.meters_stand import (
    AT,
    CHARGE,
    END,
    INPUT,
    MINUTE,
    START,
    Books,
    books_stand,
    subject,
)


@pytest.fixture(name="books")
async def _books(ledger: Ledger) -> AsyncGenerator[Books, None]:
    async with books_stand(ledger) as books:
        await books.customers("acme", "zeta")
        yield books


async def test_a_clean_interval_has_no_row_and_costs_a_call_a_customer_and_meter(
    books: Books,
) -> None:
    for n in range(3):
        hours = timedelta(hours=n)
        await books.send(await books.use(f"r{n}", at=AT + hours))
    await books.send(await books.use("z", "zeta", at=AT))
    await books.settled()
    first = await books.compare("compare_outbox")
    found = await books.compare()
    assert await books.rows() == []
    assert (first.found, found.found, found.again) == (0, 0, False)
    assert found.calls == await books.asked() == 2 * 3  # charge, input and output


async def test_a_lost_event_is_found_once_and_is_to_be_sent_again(books: Books) -> None:
    order = await books.use("r")
    lost = await books.lie("lost_event", order)
    await books.send(order, await books.use("other", input=7))
    await books.settled()
    for _ in range(2):
        await books.compare()
    row = await books.row()
    assert (row.pair, row.kind, row.cause, row.state) == (
        "outbox-stripe", "not_counted", "lost_event", "open",
    )  # fmt: skip
    assert (row.start_at, row.end_at) == (AT.replace(second=0), AT.replace(second=0) + MINUTE)
    assert row.place == {"customer_id": "acme", "meter": INPUT}
    assert row.amounts == {"input": {"outbox": 107, "stripe": 7}}
    assert (row.tokens, row.usd) == (100, None)
    assert [each["request_id"] for each in row.requests] == ["r"]
    assert row.proposal is not None
    assert (row.proposal["repair"], row.proposal["automatic"]) == ("resend", True)
    name, facts = subject(row)
    assert name == facts["identifier"] == lost
    assert (facts["meter"], facts["value"], facts["customer_id"]) == (INPUT, 100, "acme")
    assert facts["stripe_customer_id"] == books.at_stripe["acme"]
    assert facts["occurred_at"] == AT.isoformat()
    assert facts["first_sent_at"] is not None


async def test_an_event_counted_twice_can_be_cancelled(books: Books) -> None:
    order = await books.use("r")
    doubled = await books.lie("counted_twice", order, CHARGE)
    await books.send(order)
    await books.settled()
    await books.compare()
    row = await books.row()
    assert (row.kind, row.cause) == ("overcounted", "counted_twice")
    assert row.amounts == {"charge_nano_usd": {"outbox": 1_500, "stripe": 3_000}}
    assert (row.tokens, row.usd) == (0, Decimal("0.0000015"))
    assert row.proposal is not None
    assert (row.proposal["repair"], row.proposal["automatic"]) == ("cancel_event", False)
    assert subject(row)[0] == doubled


async def test_an_event_counted_for_another_customer_is_a_row_at_both(books: Books) -> None:
    order = await books.use("r")
    name = await books.lie("wrong_customer", order, customer=books.at_stripe["zeta"])
    await books.send(order, await books.use("z", "zeta", input=9))
    await books.settled()
    await books.compare()
    rows = {row.customer_id: row for row in await books.rows()}
    assert {row.cause for row in rows.values()} == {"wrong_customer"}
    assert rows["acme"].amounts == {"input": {"outbox": 100, "stripe": 0}}
    assert rows["zeta"].amounts == {"input": {"outbox": 9, "stripe": 109}}
    assert [each["identifier"] for each in rows["zeta"].requests] == [name]


async def test_usage_from_outside_is_told_apart(books: Books) -> None:
    await books.send(await books.use("r"))
    await books.outside("acme", 41)
    await books.settled()
    await books.compare()
    row = await books.row()
    assert (row.kind, row.cause, row.tokens) == ("overcounted", "outside_event", 41)
    name, facts = subject(row)
    assert (facts["value"], facts["stripe_customer_id"]) == (-41, books.at_stripe["acme"])
    assert name.endswith("#c1")


async def test_what_stripe_has_not_had_the_time_to_count_is_no_discrepancy(ledger: Ledger) -> None:
    async with books_stand(ledger, summary_lag=200) as books:
        await books.customers("acme")
        await books.send(await books.use("r"))
        first = await books.compare()
        assert (first.found, first.again, await books.rows()) == (0, True, [])
        await books.settled()
        second = await books.compare()
        assert (second.found, second.again, await books.rows()) == (0, False, [])


async def test_an_event_that_was_not_answered_is_no_difference_and_after_an_hour_stuck(
    books: Books,
) -> None:
    order = await books.use("r", at=END - MINUTE)
    counted = next(each for each in await books.stand.events(order) if each.meter == INPUT)
    await books.stripe.fault("no_answer", match=counted.identifier)
    with pytest.raises(ApplicationError):
        await books.send(order)
    await books.settled()
    assert (await books.compare()).found == 0
    await books.later(hours=1)
    await books.compare()
    row = await books.row()
    assert (row.kind, row.cause, row.proposal) == ("not_delivered", "stuck_metering", None)
    assert row.amounts == {"input": {"outbox": 100, "stripe": 0}}
    assert [each["identifier"] for each in row.requests] == [counted.identifier]
    await books.send(order)
    await books.settled()
    await books.compare("recheck_discrepancies")
    assert (await books.row()).state == "settled"


async def test_what_stripe_has_rejected_is_told_so_until_it_is_delivered(books: Books) -> None:
    order = await books.use("r")
    await books.send(order)
    charge = next(each for each in await books.stand.events(order) if each.meter == CHARGE)
    async with books.ledger.begin() as tx:
        await outbox.reject(
            tx, reported=charge.identifier, code="archived_meter", message="It is archived.",
            event_id="evt_1", at=books.stand.now(),
        )  # fmt: skip
    books.stripe.account.journal.entries[0].rejected = "archived_meter"
    await books.settled()
    await books.compare()
    row = await books.row()
    assert (row.kind, row.cause) == ("not_delivered", "rejected_later")
    assert "It is archived." in row.words


async def test_a_difference_that_is_gone_is_settled_by_the_next_look(books: Books) -> None:
    order = await books.use("r")
    await books.lie("lost_event", order)
    await books.send(order)
    await books.settled()
    await books.compare()
    await books.compare("recheck_discrepancies")
    assert (await books.row()).state == "open"
    await books.outside("acme", 100)
    asked = await books.asked()
    again = await books.compare("recheck_discrepancies")
    assert (await books.row()).state == "settled"
    assert again.calls == await books.asked() - asked == 1


async def test_a_resend_in_vain_leaves_the_next_name_to_a_person(books: Books) -> None:
    order = await books.use("r")
    lost = await books.lie("lost_event", order)
    await books.send(order)
    await books.settled()
    await books.compare()
    row = await books.row()
    async with books.ledger.begin() as tx:
        now = books.stand.now()
        begun = await discrepancies.begin_repair(
            tx, row.discrepancy_id or 0, "resend", lost, by="automatic", at=now
        )
        await discrepancies.complete_repair(tx, begun, "refused", "duplicate", now)
    await books.compare("recheck_discrepancies")
    assert subject(await books.row())[0] == lost  # it has not had the time to show
    await books.settled()
    await books.compare("recheck_discrepancies")
    row = await books.row()
    assert row.proposal is not None
    assert (subject(row)[0], row.proposal["automatic"]) == (f"{lost}#r1", False)


# --- Money ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("plan", "invoiced", "repair"),
    [
        ("pass-through", False, "resend"),
        ("pass-through", True, "collect_later"),
        ("prepaid", True, "resend"),  # nothing collects what its meter counts
    ],
)
async def test_after_the_final_invoice_the_next_statement_makes_up_for_a_metered_price(
    books: Books, plan: str, invoiced: bool, repair: str
) -> None:
    async with books.ledger.begin() as tx:
        await tx.execute(text("UPDATE customers SET plan = :plan"), {"plan": plan})
        await accounts.open_account(tx, "acme", START - timedelta(days=31), "UTC", START)
    order = await books.use("r")
    await books.lie("lost_event", order, CHARGE)
    await books.send(order)
    if invoiced:
        async with books.ledger.begin() as tx:
            await accounts.close_until(tx, "acme", END)
            await accounts.set_invoiced_until(tx, "acme", END)
    await books.settled()
    await books.compare()
    row = await books.row()
    assert row.proposal is not None
    assert row.proposal["repair"] == repair
    if repair == "collect_later":
        assert subject(row)[1]["amount_nano_usd"] == 1_500
        async with books.ledger.begin() as tx:
            await collection_corrections.add(
                tx, discrepancy_id=row.discrepancy_id or 0, customer_id="acme",
                amount_nano_usd=1_500, reason="lost", at=books.stand.now(),
            )  # fmt: skip
        await books.compare()
        assert (await books.row()).state == "explained"


# --- Trouble at Stripe ----------------------------------------------------------------------------
async def test_a_customer_that_stripe_does_not_know_stops_no_other(books: Books) -> None:
    lost = await books.use("z", "zeta")
    await books.lie("lost_event", lost)
    await books.send(lost, await books.use("r"))
    await books.stripe.client().v1.customers.delete_async(books.at_stripe["acme"])
    await books.settled()
    found = await books.compare()
    assert (await books.row()).customer_id == "zeta"
    assert "acme" in found.words
    assert not found.again


async def test_one_customers_trouble_is_tried_again_and_then_gone_on_without(books: Books) -> None:
    lost = await books.use("z", "zeta")
    await books.lie("lost_event", lost)
    await books.send(lost, await books.use("r"))
    await books.settled()
    await books.stripe.fault("unavailable", match=f"customer={books.at_stripe['acme']}", times=None)
    told: list[Any] = []
    with pytest.raises(ApplicationError) as raised:
        await books.compare_as(told=told)
    assert not raised.value.non_retryable
    asked = await books.asked()
    found = await books.compare_as(attempt=MOST_TRIES, after=told[-1])
    assert (await books.row()).customer_id == "zeta"
    assert "did not answer about customer acme" in found.words
    # Of the others nothing was asked again, but for the minutes of the lost one.
    assert 3 < await books.asked() - asked < 3 + 8


async def test_a_rate_limit_ends_the_try_and_the_next_one_goes_on_from_there(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.stripe_hours.TOGETHER", 2)
    await books.send(await books.use("r"), await books.use("z", "zeta"))
    await books.settled()
    await books.stripe.fault("rate_limited", match=f"customer={books.at_stripe['zeta']}",
                             retry_after=9)  # fmt: skip
    told: list[Any] = []
    with pytest.raises(ApplicationError) as raised:
        await books.compare_as(told=told)
    assert raised.value.type == STRIPE_RATE_LIMITED.type
    assert raised.value.next_retry_delay == timedelta(seconds=9)
    assert await books.asked() == 4
    found = await books.compare_as(attempt=2, after=told[-1])
    assert (found.found, found.calls, await books.asked()) == (0, 7, 7)
