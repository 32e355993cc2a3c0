"""What an operator skips of a charge is collected once all the same, by the statement it is on."""

import pytest
from temporalio.exceptions import ApplicationError

from activities.parked_events import ParkedEvents, RefusedError
from activities.stripe_summaries import MeterSummaries
from tallystick.contracts import RequestKey
from tallystick.ledger import operator_actions, outbox
from tallystick.ledger.operator_actions import Decision
from tallystick.ledger.waiting import waiting
from tallystick.metering import CHARGE_METER
from tests.invoicing.stand import ANCHOR, CLOSE, DAY, DOLLAR, MINUTE, Books

SKIPPED = "Claude usage that the meter has missed, "


def _parked(books: Books) -> ParkedEvents:
    summaries = MeterSummaries(books.stripe.client())
    return ParkedEvents(books.ledger, summaries, settles=5 * MINUTE)


def _decision(books: Books, key: RequestKey) -> Decision:
    subject = f"meter-events/{key.customer_id}/{key.request_id}"
    return Decision("ada", "skip", subject, key.customer_id, "Stripe does not want it", books.now)


async def _park(books: Books, dollars: int) -> RequestKey:
    """Have so many dollars used now whose charge Stripe refuses."""
    await books.stripe.fault("refused", match=CHARGE_METER, message="No.")
    await books.use(books.now, answer=dollars * DOLLAR)
    with pytest.raises(ApplicationError):
        await books.tell()
    async with books.ledger.begin() as tx:
        row = (await waiting(tx, older_than=books.now + DAY))[-1]
    return RequestKey(customer_id=row.customer_id, request_id=row.request_id)


async def test_a_skipped_charge_is_on_its_own_statement_and_no_other(books: Books) -> None:
    await books.begin("usage")
    await books.used(ANCHOR + DAY, 2)
    end = await books.end_of(1)
    await books.go(end + MINUTE)
    # The first period has ended and is not settled yet; the charge is of the second.
    key = await _park(books, 3)
    parked = _parked(books)
    with pytest.raises(RefusedError, match="Stripe is given 300 seconds"):
        await parked.skip(key, _decision(books, key))
    await books.later(minutes=6)
    told = await parked.skip(key, _decision(books, key))
    assert "a statement collects their $3 without the meter" in told
    with pytest.raises(RefusedError, match="nothing is parked"):
        await parked.skip(key, _decision(books, key))
    await books.close_at(1)
    await books.used(end + DAY, 1)
    await books.close_at(2)
    assert await books.bill(0) == [("Claude usage", 200)]
    (metered, skipped) = await books.bill(1)
    assert (metered, skipped[1], skipped[0].startswith(SKIPPED)) == (
        ("Claude usage", 100),
        300,
        True,
    )
    async with books.ledger.begin() as tx:
        (entered,) = await operator_actions.newest(tx, 10, customer_id=key.customer_id)
    assert (entered.by, entered.reason, entered.outcome) == ("ada", "Stripe does not want it", told)


async def test_what_stripe_may_count_is_not_skipped(books: Books) -> None:
    await books.begin("usage")
    await books.go(ANCHOR + DAY)
    key = await _park(books, 3)
    # Stripe counts something in that minute that it has not acknowledged.
    await books.stripe.client().v1.billing.meter_events.create_async(
        {
            "event_name": CHARGE_METER,
            "payload": {"stripe_customer_id": books.name, "value": "7"},
            "timestamp": int(books.now.timestamp()),
        }
    )
    await books.later(minutes=6)
    with pytest.raises(RefusedError, match="it may count this one"):
        await _parked(books).skip(key, _decision(books, key))


async def test_what_only_the_account_itself_can_collect_is_not_skipped(books: Books) -> None:
    await books.begin("usage")
    await books.go(await books.end_of(1) - DAY)
    key = await _park(books, 4)
    await books.close_at(1, CLOSE[:2])
    with pytest.raises(RefusedError, match="its period is closed"):
        await _parked(books).skip(key, _decision(books, key))
    async with books.ledger.begin() as tx:
        assert await outbox.parked_of(tx, key)
        assert await operator_actions.newest(tx, 10) == []
    await books.all(CLOSE[2:], 1)
    assert [cents for _, cents in await books.bill(0)] == [0, 400]
