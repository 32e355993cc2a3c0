"""What a final invoice has collected wrongly is made up for by the next one, to the cent and once.

An invoice is compared with its statement before it is made final, so money can go wrong only in the
moment between: Stripe counts something then, or no longer counts it.
"""

import asyncio
import itertools
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from activities.repairs import AppliedRepair, Repairs
from activities.stripe_meters import EventTransport
from tallystick.ledger import discrepancies, reconciliations
from tallystick.ledger.database import Ledger, LedgerUnavailableError
from tallystick.ledger.reconciliation_tables import DiscrepancyState
from tallystick.metering import CHARGE_METER
from tallystick.reconciling.findings import Cause, Finding, Kind, Pair, Proposal, RepairKind
from tests.invoicing.stand import ANCHOR, CLOSE, DAY, MINUTE, Books, Interrupted
from tests.statements.reading import reads_right

USED_AT = ANCHOR + DAY
DIME = 100_000_000
"""Nano-USD."""


async def invoiced_wrongly(books: Books, nano_usd: int) -> None:
    """Close a period over a dollar whose invoice, compared and found right, changes by so much."""
    await books.begin("usage")
    await books.used(USED_AT, 1)
    await books.go(await books.end_of(1) + 10 * MINUTE)
    *before, last = CLOSE[:-2]
    await books.all(before, 1)
    hold = await books.stripe.hold("/finalize", at="received")
    closing = asyncio.create_task(books.step(last, 1))
    await books.stripe.until_held()
    usage = {
        "event_name": CHARGE_METER,
        "customer": books.name,
        "value": nano_usd,
        "timestamp": int(USED_AT.timestamp()),
    }
    await books.stripe.control("POST", "meter_usage", events=[usage])
    await books.stripe.control("DELETE", f"holds/{hold}")
    await closing


async def differs(books: Books, at: datetime, amount: int) -> int:
    """Report that Stripe counts otherwise in a minute of a closed period."""
    words = "The next statement can make up for it."
    subjects = {books.customer: {"amount_nano_usd": amount}}
    finding = Finding(
        pair=Pair.OUTBOX_STRIPE,
        kind=Kind.OVERCOUNTED,
        start=at,
        end=at + MINUTE,
        place={"customer_id": books.customer, "meter": CHARGE_METER},
        amounts={"charge_nano_usd": {"outbox": 0, "stripe": -amount}},
        cause=Cause.OUTSIDE_EVENT,
        words="It differs.",
        proposal=Proposal(RepairKind.COLLECT_LATER, words, subjects, automatic=False),
    )
    async with books.ledger.begin() as tx:
        run = await reconciliations.open_run(
            tx, run="run", kind="manual", start=at, end=at + MINUTE, at=books.now
        )
        row = await discrepancies.report(
            tx, finding, reconciliation_id=run, settles=timedelta(minutes=5), at=books.now
        )
    assert row.discrepancy_id is not None
    return row.discrepancy_id


async def apply(
    books: Books, discrepancy_id: int, *, dry_run: bool = False, ledger: Ledger | None = None
) -> AppliedRepair:
    client = books.stripe.client()
    repairs = Repairs(ledger or books.ledger, client, EventTransport(client))
    return await repairs.apply(discrepancy_id, by="operator", dry_run=dry_run, now=books.now)


async def test_what_was_collected_too_much_comes_back_and_once(books: Books) -> None:
    await invoiced_wrongly(books, 5 * DIME)
    (first,) = await books.invoices()
    assert (first.status, first.total) == ("paid", 150)
    assert (await books.statement(1)).due_cents == 100

    found = await differs(books, USED_AT, -5 * DIME)
    said = await apply(books, found, dry_run=True)
    assert [each.words for each in said.subjects] == [
        "the next statement gives back $0.5 that the meter of period 1 got wrong"
    ]
    ledger = Interrupted(books.ledger.url)
    for after in itertools.count():
        ledger.after = after
        try:
            await apply(books, found, ledger=ledger)
        except LedgerUnavailableError:
            continue
        break
    await ledger.close()
    done = await apply(books, found)
    assert done.state == DiscrepancyState.SETTLED
    assert [each.outcome for each in done.subjects] == ["done"]
    # Of another minute, but there is nothing more to give back.
    other = await differs(books, USED_AT + MINUTE, -5 * DIME)
    (refused,) = (await apply(books, other)).subjects
    assert "collect what its statement says" in refused.words

    await books.used(books.now, 0.2)
    await books.close_at(2)
    statement = await books.statement(2)
    assert (statement.usage_usd, statement.due_cents) == (Decimal("0.2"), -30)
    reads_right(statement)
    assert await books.bill(1) == [
        ("Claude usage", 20),
        ("Correction of what was collected for earlier usage", -50),
    ]
    # Stripe keeps what is given back for the next invoice.
    second = (await books.invoices())[1]
    assert (second.status, second.total, second.amount_due) == ("paid", -30, 0)
    await books.used(books.now, 1)
    await books.close_at(3)
    third = (await books.invoices())[2]
    assert (third.total, third.amount_paid) == (100, 70)
    assert await books.notices() == []


async def test_two_minutes_of_one_mistake_give_back_no_more_than_it_was(books: Books) -> None:
    await invoiced_wrongly(books, 5 * DIME)
    minutes = [USED_AT + number * MINUTE for number in range(3)]
    found = [await differs(books, minute, -3 * DIME) for minute in minutes]
    applied = await asyncio.gather(*(apply(books, each) for each in found))
    outcomes = [subject.outcome for each in applied for subject in each.subjects]
    assert sorted(outcomes) == ["done", "refused", "refused"]


@pytest.mark.parametrize("amount", [3 * DIME, 4 * DIME])
async def test_what_was_collected_too_little_is_collected_up_to_what_is_missing(
    books: Books, amount: int
) -> None:
    await invoiced_wrongly(books, -3 * DIME)
    (first,) = await books.invoices()
    assert first.total == 70
    (done,) = (await apply(books, await differs(books, USED_AT, amount))).subjects
    await books.close_at(2)
    corrected = [line.amount_cents for line in (await books.statement(2)).lines[1:]]
    if amount == 3 * DIME:
        assert (done.outcome, corrected) == ("done", [30])
    else:
        assert (done.outcome, corrected) == ("refused", [])
        assert done.words == "the invoices of period 1 lack $0.3, and not $0.4"


async def test_a_meter_that_is_wrong_while_the_money_is_right_is_left(books: Books) -> None:
    await books.begin("usage")
    await books.used(USED_AT, 1)
    found = await differs(books, USED_AT, -5 * DIME)
    (refused,) = (await apply(books, found, dry_run=True)).subjects
    assert "no final invoice has collected what the meter counted" in refused.words
    await books.close_at(1)
    (refused,) = (await apply(books, found)).subjects
    assert refused.outcome == "refused"
    assert "only the meter is wrong and no money" in refused.words
