"""Before a draft is final: Stripe has counted what the ledger charged, or the draft is held."""

from datetime import timedelta

import pytest
from temporalio.exceptions import ApplicationError

from tallystick.metering import CHARGE_METER, METERS
from tests.invoicing.stand import ANCHOR, CLOSE, DAY, DOLLAR, HOUR, MINUTE, SECOND, Books

CUT_OFF = timedelta(hours=72)


async def _ended(books: Books, plan: str = "usage") -> None:
    """Have $2 used and told, $3 used that Stripe does not hear of, and the books closed."""
    await books.begin(plan)
    await books.used(ANCHOR + DAY, 2)
    await books.use(ANCHOR + 2 * DAY, answer=3 * DOLLAR)
    await books.close_at(1, CLOSE[:2])


async def test_a_charge_on_its_way_is_waited_for(books: Books) -> None:
    await _ended(books)
    waiting = await books.step("verify_metering", 1)
    assert waiting.words == "1 charge(s) of the period are not acknowledged by Stripe"
    assert waiting.again_at == books.now + 5 * MINUTE
    await books.tell()
    await books.all(CLOSE[2:], 1)
    assert await books.bill(0) == [("Claude usage", 500)]
    assert await books.notices() == []


async def test_a_charge_that_never_got_through_is_collected_by_an_item(books: Books) -> None:
    await _ended(books)
    verified = await books.through("verify_metering", 1)
    assert verified.words == "Stripe has counted the period as the ledger has"
    assert books.now >= await books.end_of(1) + CUT_OFF
    await books.tell()  # nothing is left to be told
    await books.all(CLOSE[3:], 1)
    assert await books.bill(0) == [
        ("Claude usage", 200),
        ("Claude usage that the meter has missed, 2026-11-30 to 2026-12-30", 300),
    ]
    notice = await books.notice("metering_cut_off")
    assert "1 charge(s) are withdrawn" in notice.message
    assert (await books.statement(1)).due_cents == 500


async def test_a_parked_charge_is_collected_by_an_item_too(books: Books) -> None:
    await books.begin("usage")
    await books.used(ANCHOR + DAY, 2)
    await books.use(ANCHOR + 2 * DAY, answer=3 * DOLLAR)
    await books.go(ANCHOR + 2 * DAY)
    await books.stripe.fault("refused", match=CHARGE_METER, message="Not this one.")
    with pytest.raises(ApplicationError):
        await books.tell()
    await books.close_at(1, CLOSE[:2])
    assert "Not this one." in (await books.step("verify_metering", 1)).words
    await books.all(CLOSE[2:], 1)
    assert [amount for _, amount in await books.bill(0)] == [200, 300]


async def test_a_charge_that_stripe_rejected_later_holds_the_draft_and_is_told_once(
    books: Books,
) -> None:
    await books.begin("usage")
    await books.used(ANCHOR + DAY, 2)
    await books.stripe.fault("rejected_later", match=CHARGE_METER)
    await books.used(ANCHOR + 2 * DAY, 3)
    await books.close_at(1, CLOSE[:2])
    for _ in range(60):
        held = await books.step("verify_metering", 1)
        assert held.words == (
            "Stripe has counted 2,000,000,000 nano-USD, the ledger sent 5,000,000,000"
        )
        assert held.again_at is not None
        await books.go(held.again_at + HOUR)
    assert await books.notices() == ["metering_cut_off"]
    assert (await books.invoices())[0].status == "draft"
    notice = await books.notice("metering_cut_off")
    assert notice.message.startswith("The invoice of period 1 stays a draft")


async def test_summaries_that_lag_are_waited_for(books: Books) -> None:
    books.stripe.account.summary_lag = 120
    await books.begin("usage")
    end = await books.end_of(1)
    await books.go(end + 9 * MINUTE + 30 * SECOND)
    await books.used(end - MINUTE, 2)
    await books.close_at(1, CLOSE[:2])
    assert (await books.step("verify_metering", 1)).again_at is not None
    await books.all(CLOSE[2:], 1)
    assert await books.bill(0) == [("Claude usage", 200)]


async def test_late_usage_is_on_the_next_statement_and_on_no_metered_line(books: Books) -> None:
    await books.begin("usage")
    await books.used(ANCHOR + DAY, 2)
    end = await books.end_of(1)
    await books.close_at(1, CLOSE[:5])  # the draft is open still
    await books.use(end - DAY, answer=7 * DOLLAR)
    with pytest.raises(ApplicationError) as caught:
        await books.tell()
    assert caught.value.type == "MeterHeld"
    await books.all(CLOSE[5:], 1)
    await books.tell()
    await books.used(end + DAY, 1)
    await books.close_at(2)
    assert await books.bill(0) == [("Claude usage", 200)]
    assert await books.bill(1) == [
        ("Claude usage", 100),
        ("Claude usage before 2026-12-30, recorded later", 700),
    ]
    told = (await books.stripe.totals())["by_event_name"][CHARGE_METER]
    assert told["sum"] == str(10 * 10**9)
    assert await books.notices() == []


async def test_a_meter_that_is_gone_holds_the_draft(books: Books) -> None:
    await _ended(books)
    await books.tell()
    meters = books.stripe.account.table("meter")
    for meter in list(meters.values()):
        if meter["event_name"] in METERS:
            del meters[meter["id"]]
    held = await books.step("verify_metering", 1)
    assert held.words.startswith("Stripe's sum of the period is not known: Stripe has no meter")
    await books.go(await books.end_of(1) + CUT_OFF)
    assert (await books.step("verify_metering", 1)).again_at is not None
    assert await books.notices() == ["metering_cut_off"]


async def test_a_hybrid_plan_waits_for_no_meter(books: Books) -> None:
    await _ended(books, "base")
    assert (await books.step("verify_metering", 1)).again_at is None
    await books.all(CLOSE[3:], 1)
    assert ("Claude usage, 2026-11-30 to 2026-12-30", 500) in await books.bill(1)
