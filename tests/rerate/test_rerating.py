"""Pricing a period again, and what is booked of it, on a real ledger."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import pytest_asyncio
from sqlalchemy import delete, update
from sqlalchemy.exc import DBAPIError
from typer.testing import CliRunner

from tallystick.cli.app import app
from tallystick.ledger import adjustments, reports, terms, waiting
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Adjustment
from tallystick.metering import CHARGE_METER, meter_identifier, token_meter
from tallystick.plans import CustomerTerms, PlanTerms
from tallystick.pricing import PriceBook, price_book, rate
from tallystick.rerating import Rerating, reprice, rerate
from tests.rerate.stand import (
    DAY,
    NOON,
    UNKNOWN,
    add_customer,
    adjustments_in,
    another_book,
    dearer_sonnet,
    events_of,
    knows_the_unknown,
    price_answers,
    reply,
    serve,
)

DEARER, KNOWING = another_book(dearer_sonnet), another_book(knows_the_unknown)


@pytest_asyncio.fixture
async def books(ledger: Ledger) -> AsyncIterator[Ledger]:
    """A ledger with one customer, who pays what Claude costs."""
    await add_customer(ledger, "acme")
    yield ledger


async def again(
    ledger: Ledger, book: PriceBook | None = None, *, booking: bool = False, **options: str
) -> Rerating:
    async with ledger.begin() as tx:
        return await rerate(tx, *DAY, book=book, booking=booking, **options)


async def charged(ledger: Ledger, customer: str = "acme") -> Decimal:
    async with ledger.begin() as tx:
        return (await reports.totals(tx, customer))[0].charge_usd


async def test_the_same_book_finds_no_difference(books: Ledger) -> None:
    await serve(books, reply())
    found = await again(books, booking=True)
    assert (found.records, found.differences, found.no_price, found.booked) == (1, [], [], 0)
    assert await adjustments_in(books) == []


async def test_a_difference_is_shown_and_not_booked_unless_asked(books: Ledger) -> None:
    await serve(books, reply())
    found = await again(books, DEARER)
    # 100 answer tokens at $12 instead of $10 a million.
    assert (found.cost_usd, found.charge_usd) == (Decimal("0.0002"), Decimal("0.0002"))
    assert found.booked == 0
    assert await adjustments_in(books) == []


async def test_booking_adds_what_was_missing_and_touches_no_record(books: Ledger) -> None:
    key, _ = await serve(books, reply())
    sent = await events_of(books, key)
    assert await charged(books) == Decimal("0.003")
    assert (await again(books, DEARER, booking=True)).booked == 1
    assert await charged(books) == Decimal("0.0032")
    (adjustment,) = await adjustments_in(books)
    assert (adjustment.cost_usd, adjustment.charge_nano_usd) == (Decimal("0.0002"), 200_000)
    assert (adjustment.status, adjustment.price_book) == ("priced", "later")
    assert adjustment.reason == f"price book {price_book().version} before"
    assert [line["amount_usd"] for line in adjustment.lines] == ["0.002", "0.0012"]
    # What was metered stays as it was; the difference belongs on the next statement.
    assert await events_of(books, key) == sent


async def test_booking_twice_books_once(books: Ledger) -> None:
    await serve(books, reply())
    await again(books, DEARER, booking=True)
    found = await again(books, DEARER, booking=True)
    assert (found.differences, found.booked) == ([], 0)
    assert await charged(books) == Decimal("0.0032")


async def test_two_runs_at_the_same_time_book_once(books: Ledger) -> None:
    for _ in range(5):
        await serve(books, reply(model=UNKNOWN))
    found = await asyncio.gather(*(again(books, KNOWING, booking=True) for _ in range(4)))
    assert sum(each.booked for each in found) == 5
    assert len(await adjustments_in(books)) == 5
    assert await charged(books) == Decimal("0.015")


async def test_runs_with_different_books_do_not_add_up(books: Ledger) -> None:
    await serve(books, reply())
    async with books.begin() as tx:
        await rerate(tx, *DAY, book=DEARER, booking=True)
        dearest = another_book(lambda data: price_answers(data, "14"), "dearest")
        second = asyncio.create_task(again(books, dearest, booking=True))
        await asyncio.wait({second}, timeout=0.5)  # not before the first has committed
    assert (await second).charge_usd == Decimal("0.0002")
    assert await charged(books) == Decimal("0.0034")


async def test_a_correction_of_a_correction_is_the_difference_to_it(books: Ledger) -> None:
    await serve(books, reply())
    await again(books, DEARER, booking=True)
    found = await again(books, another_book(lambda data: None, "latest"), booking=True)
    assert found.charge_usd == Decimal("-0.0002")
    assert found.differences[0].reason == "price book later before"
    assert await charged(books) == Decimal("0.003")
    (third,) = (await again(books, another_book(dearer_sonnet, "newest"))).differences
    assert (third.reason, third.charge_nano_usd) == ("price book latest before", 200_000)


async def test_the_charge_follows_the_terms_of_its_time(books: Ledger) -> None:
    await add_customer(books, "marked-up", "pass-through")
    async with books.begin() as tx:
        own = CustomerTerms(discount=Decimal("0.5"))
        await terms.add(tx, "marked-up", NOON - timedelta(hours=1), own)
        later = CustomerTerms(discount=Decimal("0"))
        await terms.add(tx, "marked-up", NOON + timedelta(hours=1), later)
    await serve(books, reply(), customer="marked-up")
    # Cost 0.0032, 20 % on top, half of it let off; 0.0018 was charged.
    found = await again(books, DEARER)
    assert found.cost_usd == Decimal("0.0002")
    assert found.charge_usd == Decimal("0.00012")


async def test_only_the_period_and_the_customer_asked_for_are_priced_again(books: Ledger) -> None:
    await add_customer(books, "other")
    await serve(books, reply())
    await serve(books, reply(), customer="other")
    await serve(books, reply(), at=DAY[1])
    assert (await again(books, DEARER)).records == 2
    assert (await again(books, DEARER, customer_id="other")).records == 1


async def test_usage_without_a_price_stays_so_until_the_book_knows_it(books: Ledger) -> None:
    key, recorded = await serve(books, reply(model=UNKNOWN))
    assert recorded.bill.status == "unpriced"
    found = await again(books, booking=True)
    assert [each.usage.key for each in found.no_price] == [key]
    assert UNKNOWN in found.no_price[0].reason
    assert found.booked == 0


async def test_a_first_price_is_an_adjustment_with_its_meter_events(books: Ledger) -> None:
    key, _ = await serve(books, reply(model=UNKNOWN))
    assert await events_of(books, key) == {}
    found = await again(books, KNOWING, booking=True)
    assert found.differences[0].first_price
    assert await charged(books) == Decimal("0.003")
    assert await events_of(books, key) == {
        CHARGE_METER: 3_000_000,
        token_meter("input"): 1_000,
        token_meter("output"): 100,
    }
    async with books.begin() as tx:
        (order,) = await adjustments.unmetered(tx, *DAY)
        assert (order.key, order.events) == (key, 3)
        (record,) = [each async for each in reports.records(tx)]
    names = {each["identifier"] for each in record["meter_events"]}
    assert meter_identifier("acme", key.request_id, CHARGE_METER) in names
    # The record says what it said; what holds stands beside it.
    assert (record["status"], record["cost_usd"]) == ("unpriced", None)
    assert (record["effective_status"], record["effective_cost_usd"]) == (
        "priced",
        Decimal("0.003"),
    )
    assert [each["cost_usd"] for each in record["adjustments"]] == ["0.003"]


async def test_counts_that_nobody_could_read_are_corrected_with_the_price(books: Ledger) -> None:
    # A cache write of unknown lifetime; the reply's evidence is read again once rules know it.
    cut = {"input_tokens": 1_000, "output_tokens": 100, "cache_creation_input_tokens": 500}
    await serve(books, reply(usage=cut))
    async with books.begin() as tx:
        (used,) = [each async for each in adjustments.booked_usage(tx, *DAY)]
        assert used.tokens.prompt == 0
        split = {"ephemeral_5m_input_tokens": 500}
        read = rate(reply(usage=cut | {"cache_creation": split}), at=NOON)
        difference = reprice(used, read, PlanTerms(model="pass-through"))
        assert difference is not None
        await adjustments.book(tx, difference)
        (totals,) = await reports.totals(tx)
    assert (totals.tokens["input"], totals.tokens["cache_write_5m"]) == (1_000, 500)
    assert totals.charge_usd == Decimal("0.00425")
    assert totals.unpriced == 0


async def test_a_refusal_that_turns_out_free_is_no_longer_stuck_and_not_metered(
    books: Ledger,
) -> None:
    refused = reply(0, 0, stop_reason="refusal", content=[])
    key, _ = await serve(books, {name: refused[name] for name in refused if name != "content"})
    async with books.begin() as tx:
        (used,) = [each async for each in adjustments.booked_usage(tx, *DAY)]

        assert used.status == "unpriced"
        difference = reprice(used, rate(refused, at=NOON), PlanTerms(model="pass-through"))
        assert difference is not None
        assert difference.status == "not_billed"
        await adjustments.book(tx, difference)
    assert await events_of(books, key) == {}
    assert await _stuck(books) == []


async def test_what_an_adjustment_has_priced_is_stuck_no_longer_but_for_its_events(
    books: Ledger,
) -> None:
    key, _ = await serve(books, reply(model=UNKNOWN))
    assert [(row.what, row.request_id) for row in await _stuck(books)] == [
        ("unpriced", key.request_id)
    ]
    await again(books, KNOWING, booking=True)
    (row,) = await _stuck(books)
    assert (row.what, row.at_stake_usd) == ("not metered", Decimal("0.003"))


async def _stuck(ledger: Ledger) -> list[waiting.Waiting]:
    async with ledger.begin() as tx:
        return list(await waiting.waiting(tx, older_than=DAY[1]))


@pytest.mark.parametrize("statement", [update(Adjustment).values(reason="no"), delete(Adjustment)])
async def test_adjustments_are_never_changed_or_removed(books: Ledger, statement: object) -> None:
    await serve(books, reply())
    await again(books, DEARER, booking=True)
    with pytest.raises(DBAPIError, match="append-only"):
        async with books.begin() as tx:
            await tx.execute(statement)  # pyright: ignore[reportCallIssue, reportArgumentType]


async def test_usage_is_rated_at_the_price_of_its_own_day(books: Ledger) -> None:
    # Sonnet 5.5 cache reads cost $0.20 a million until 2026-10-07, and half of it since.
    read = reply(usage={"input_tokens": 0, "output_tokens": 0, "cache_read_input_tokens": 100_000})
    before = datetime(2026, 10, 6, 23, 59, 59, tzinfo=UTC)
    _, earlier = await serve(books, read, at=before)
    _, later = await serve(books, read, at=before + timedelta(seconds=1))
    assert (earlier.bill.cost_usd, later.bill.cost_usd) == (Decimal("0.02"), Decimal("0.01"))
    async with books.begin() as tx:
        found = await rerate(tx, before - timedelta(days=1), before + timedelta(days=1))
    assert (found.records, found.differences) == (2, [])


async def test_the_commands_show_what_holds_beside_what_was_written(
    books: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    await serve(books, reply())
    await serve(books, reply(model=UNKNOWN))
    await again(books, DEARER, booking=True)

    async def told(*command: str) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, app, command)
        assert result.exit_code == 0, result.output
        return result.output

    lines = (await told("ledger", "export", "--json")).splitlines()
    priced, unpriced = (json.loads(line) for line in lines)
    assert (priced["charge_usd"], priced["effective_charge_usd"]) == ("0.003", "0.0032")
    assert [each["charge_usd"] for each in priced["adjustments"]] == ["0.0002"]
    assert (unpriced["effective_charge_usd"], unpriced["adjustments"]) == (None, [])
    (totals,) = json.loads(await told("usage", "--json"))
    assert (totals["charge_usd"], totals["unpriced"]) == ("0.0032", 1)
    assert "tallystick rerate --from 2026-11-10 --book" in await told("stuck")
    shown = await told("rerate", "--from", "2026-11-10", "--to", "2026-11-11")
    assert "nothing is booked; --book books it" in shown
    assert "no price for acme" in shown
    assert "-0.0002" in shown
