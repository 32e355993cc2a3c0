"""Usage records beside the meter events that they have to leave, in a real PostgreSQL."""

from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from tallystick.ledger import record_gaps
from tallystick.ledger.database import Ledger
from tallystick.ledger.record_gaps import of_batches
from tallystick.metering import meter_identifier
from tallystick.reconciling.findings import Kind
from tallystick.rerating import rerate
from tests.batches.test_settling import ENDED, Desk, errored, succeeded
from tests.reconciliation.meters_stand import AT, CHARGE, INPUT, OUTPUT, Books, books_stand, subject
from tests.rerate.stand import (
    DAY,
    UNKNOWN,
    add_customer,
    another_book,
    dearer_sonnet,
    knows_the_unknown,
    left_unpriced,
    reply,
    serve,
)


@pytest.fixture(name="books")
async def _books(ledger: Ledger) -> AsyncGenerator[Books, None]:
    async with books_stand(ledger) as books:
        await books.customers("acme")
        yield books


async def change(ledger: Ledger, statement: str, **values: Any) -> None:
    """Change rows past what protects them, as somebody with a restored copy would."""
    async with ledger.begin() as tx:
        await tx.execute(text("SET LOCAL session_replication_role = replica"))
        await tx.execute(text(statement), values)


async def test_a_missing_event_follows_from_its_record(books: Books) -> None:
    order = await books.use("r")
    await books.use("whole")
    gone = meter_identifier("acme", "r", INPUT)
    await change(books.ledger, "DELETE FROM meter_events WHERE identifier = :gone", gone=gone)
    for _ in range(2):
        await books.compare("compare_outbox")
    row = await books.row()
    assert (row.pair, row.kind, row.cause) == ("ledger-outbox", "event_missing", "lost_record")
    assert row.amounts == {"input": {"ledger": 100, "outbox": 0}}
    assert (row.start_at, row.tokens) == (AT.replace(second=0), 100)
    name, facts = subject(row)
    assert (name, facts["meter"], facts["value"]) == (gone, INPUT, 100)
    assert (facts["occurred_at"], facts["billed_at"]) == (AT.isoformat(), AT.isoformat())
    assert facts["request_id"] == order.key.request_id
    assert facts["usage_record_id"] is not None
    assert row.proposal is not None
    assert (row.proposal["repair"], row.proposal["automatic"]) == ("enqueue_events", True)


async def test_long_after_the_use_somebody_has_to_look_before_it_is_told_again(
    books: Books,
) -> None:
    await books.use("r")
    await change(books.ledger, "DELETE FROM meter_events WHERE meter = :meter", meter=INPUT)
    await books.later(days=1)
    await books.compare("compare_outbox")
    row = await books.row()
    assert row.proposal is not None
    assert not row.proposal["automatic"]


async def test_an_event_of_another_value_or_without_a_reason_differs(books: Books) -> None:
    await books.use("r")
    await books.use("free", nano=0, input=5)
    await change(
        books.ledger, "UPDATE meter_events SET value = 70 WHERE value = 100 AND meter = :m", m=INPUT
    )
    await change(
        books.ledger,
        "INSERT INTO meter_events (usage_record_id, customer_id, request_id, identifier, meter,"
        " value, occurred_at, billed_at) SELECT usage_record_id, customer_id, request_id, 'extra',"
        " :m, 9, occurred_at, billed_at FROM meter_events WHERE request_id = 'free'",
        m=OUTPUT,
    )
    await books.compare("compare_outbox")
    rows = {row.place["meter"]: row for row in await books.rows()}
    assert {row.kind for row in rows.values()} == {"event_differs"}
    assert rows[INPUT].amounts == {"input": {"ledger": 100, "outbox": 70}}
    assert rows[OUTPUT].amounts == {"output": {"ledger": 0, "outbox": 9}}
    assert [row.proposal for row in rows.values()] == [None, None]


async def test_what_is_put_into_the_outbox_settles_it(books: Books) -> None:
    await books.use("r")
    await change(books.ledger, "CREATE TABLE kept AS SELECT * FROM meter_events")
    await change(books.ledger, "DELETE FROM meter_events WHERE meter = :meter", meter=CHARGE)
    await books.compare("compare_outbox")
    assert (await books.row()).state == "open"
    await change(
        books.ledger, "INSERT INTO meter_events SELECT * FROM kept WHERE meter = :m", m=CHARGE
    )
    await books.compare("recheck_discrepancies")
    assert (await books.row()).state == "settled"


async def test_each_hour_has_what_was_charged_and_what_is_to_be_told_of_it(books: Books) -> None:
    await books.send(await books.use("a"), await books.use("b", at=AT + timedelta(hours=1)))
    await books.use("waits")
    await books.settled()
    await books.compare("compare_outbox")
    await books.compare()
    async with books.ledger.begin() as tx:
        rows = await tx.execute(
            text("SELECT hour, unit, claude, ledger, outbox, stripe FROM tally_hours ORDER BY 2, 1")
        )
        hours = [tuple(row) for row in rows]
    nine = AT.replace(minute=0, second=0)
    ten = nine + timedelta(hours=1)
    assert hours == [
        (nine, "charge_nano_usd", None, 3_000, 3_000, 1_500),
        (ten, "charge_nano_usd", None, 1_500, 1_500, 1_500),
        (nine, "input", None, None, 200, 100),
        (ten, "input", None, None, 100, 100),
        (nine, "output", None, None, 40, 20),
        (ten, "output", None, None, 20, 20),
    ]


# --- First prices and corrections -----------------------------------------------------------------
async def gaps(ledger: Ledger) -> list[record_gaps.RecordGap]:
    async with ledger.begin() as tx:
        found = [each async for each in record_gaps.of_records(tx, *DAY)]
        return found + await of_batches(tx, *DAY)


async def test_a_first_price_owes_its_events_and_a_correction_none(ledger: Ledger) -> None:
    await add_customer(ledger, "acme")
    await serve(ledger, reply())
    key = await left_unpriced(ledger, reply(model=UNKNOWN))
    assert await gaps(ledger) == []  # without a price nothing is owed yet
    async with ledger.begin() as tx:
        booked = await rerate(tx, *DAY, book=another_book(knows_the_unknown), booking=True)
    assert booked.booked == 1
    assert await gaps(ledger) == []
    async with ledger.begin() as tx:
        await rerate(tx, *DAY, book=another_book(dearer_sonnet, "dearer"), booking=True)
    assert await gaps(ledger) == []
    await change(ledger, "DELETE FROM meter_events WHERE request_id = :r", r=key.request_id)
    missing = await gaps(ledger)
    assert {(gap.meter, gap.kind, gap.request_id) for gap in missing} == {
        (meter, Kind.EVENT_MISSING, key.request_id) for meter in (CHARGE, INPUT, OUTPUT)
    }
    async with ledger.begin() as tx:
        orders = await tx.execute(text("SELECT billed_at FROM adjustments ORDER BY 1 LIMIT 1"))
        assert {gap.billed_at for gap in missing} == {orders.scalar_one()}


# --- Batches --------------------------------------------------------------------------------------
BATCH_DAY = (ENDED - timedelta(hours=13), ENDED + timedelta(hours=11))


async def settled_batch(ledger: Ledger) -> None:
    """Settle five items in two chunks; one comes to nothing."""
    await add_customer(ledger, "acme", "pass-through")
    desk = Desk(ledger, "acme")
    shard = await desk.send(5)
    await desk.settle(shard, [succeeded(0), succeeded(1), errored(2, "invalid_request_error")])
    await desk.settle(shard, [succeeded(3), succeeded(4)], at=1)


async def batch_gaps(ledger: Ledger) -> list[record_gaps.RecordGap]:
    async with ledger.begin() as tx:
        found = [each async for each in record_gaps.of_records(tx, *BATCH_DAY)]
        return found + await of_batches(tx, *BATCH_DAY)


async def test_the_chunks_of_a_batch_stand_for_their_records(ledger: Ledger) -> None:
    await settled_batch(ledger)
    assert await batch_gaps(ledger) == []
    chunk = "job/chunk/1-2"
    async with ledger.begin() as tx:
        told = await tx.execute(
            text("SELECT meter, value FROM meter_events WHERE request_id = :c"), {"c": chunk}
        )
        values = {row.meter: row.value for row in told}
    await change(ledger, "DELETE FROM meter_events WHERE request_id = :c", c=chunk)
    missing = await batch_gaps(ledger)
    assert {gap.meter: gap.owed for gap in missing} == values
    assert {(gap.request_id, gap.kind, gap.usage_record_id) for gap in missing} == {
        (chunk, Kind.EVENT_MISSING, None)
    }
    assert {gap.occurred_at for gap in missing} == {ENDED}


async def test_a_chunk_that_says_something_else_differs_and_so_does_a_stray_event(
    ledger: Ledger,
) -> None:
    await settled_batch(ledger)
    await change(
        ledger,
        "UPDATE meter_events SET value = value + 3 WHERE request_id = 'job/chunk/1-1'"
        " AND meter = :m",
        m=INPUT,
    )
    (gap,) = await batch_gaps(ledger)
    assert (gap.kind, gap.meter, (gap.told or 0) - gap.owed) == (Kind.EVENT_DIFFERS, INPUT, 3)
    await change(ledger, "UPDATE meter_events SET value = value - 3 WHERE meter = :m"
                 " AND request_id = 'job/chunk/1-1'", m=INPUT)  # fmt: skip
    await change(
        ledger,
        "UPDATE meter_events SET request_id = 'elsewhere' WHERE meter = :m"
        " AND request_id = 'job/chunk/1-1'",
        m=OUTPUT,
    )
    kinds = {(gap.request_id, gap.kind) for gap in await batch_gaps(ledger)}
    assert kinds == {
        ("job/chunk/1-1", Kind.EVENT_MISSING),
        ("elsewhere", Kind.EVENT_DIFFERS),
    }
