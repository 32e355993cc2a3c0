"""Records, meter events and what Stripe counts, laid side by side over real HTTP and PostgreSQL."""

from collections.abc import AsyncGenerator
from datetime import timedelta

import pytest

from tallystick.ledger.database import Ledger
from tallystick.metering import CHARGE_METER
from tests.reconciliation.meters_stand import (
    AT,
    INPUT,
    MINUTE,
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
    assert CHARGE_METER not in row.words
