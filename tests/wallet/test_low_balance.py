"""A balance that becomes lower: alerts once a period, a warning, and one top-up at a time."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.testing import ActivityEnvironment

from activities.wallet import WalletActivities
from tallystick.contracts import StepOrder
from tallystick.ledger import reservations, top_ups, wallet
from tallystick.ledger.account_tables import Alert, Grant
from tallystick.ledger.database import Ledger
from tests.wallet.purse import DAY, NOON, Purse, nano

APRIL = datetime(2026, 4, 1, tzinfo=UTC)
TOP_UP = {"below_usd": "10", "amount_usd": "50", "expires_after_days": 365}


async def _alerts(purse: Purse) -> list[tuple[int, int]]:
    """Return the month and percentage of each alert, and check that each was told."""
    told = await purse.notices("usage_alert")
    rows = [(row.period_start.month, row.percent) for row in await purse.rows(Alert)]
    assert [(notice.raised_at.month, notice.facts["percent"]) for notice in told] == rows
    return rows


async def test_shares_of_the_credit_are_told_once_each_as_they_are_passed(ledger: Ledger) -> None:
    purse = await Purse(ledger).open()
    await purse.give(10, "first")
    await purse.use("4.999999999")
    assert await _alerts(purse) == []
    burnt = await purse.use("0.000000001")
    assert (burnt.news, await _alerts(purse)) == (True, [(3, 50)])
    assert not (await purse.use("0.1")).news
    await purse.use("4.9")
    assert await _alerts(purse) == [(3, 50), (3, 80), (3, 100)]
    # More credit in the same period is no reason to say it again.
    await purse.give(10, "second")
    await purse.use(10)
    assert await _alerts(purse) == [(3, 50), (3, 80), (3, 100)]


async def test_a_new_period_counts_from_what_is_left_when_it_begins(ledger: Ledger) -> None:
    purse = await Purse(ledger).open()
    await purse.give(100, "first")
    await purse.use(60)
    assert await _alerts(purse) == [(3, 50)]
    await purse.use(19, at=APRIL)  # of the 40 that were left
    assert await _alerts(purse) == [(3, 50)]
    await purse.use(1, at=APRIL)
    assert await _alerts(purse) == [(3, 50), (4, 50)]
    await purse.give(60, "second", at=APRIL)  # 80 of now 100 are left
    await purse.use(59, at=APRIL + DAY)
    assert await _alerts(purse) == [(3, 50), (4, 50)]
    await purse.use(1, at=APRIL + DAY)
    assert await _alerts(purse) == [(3, 50), (4, 50), (4, 80)]


async def test_what_expires_or_is_taken_back_counts_as_never_given(ledger: Ledger) -> None:
    purse = await Purse(ledger).open()
    await purse.give(10, "stays")
    await purse.give(30, "ends", expires_at=NOON)
    await purse.give(60, "mistake")
    async with ledger.begin() as tx:
        assert await wallet.revoke(tx, await purse.account(tx), "mistake", NOON) == nano(60)
        assert await wallet.revoke(tx, await purse.account(tx), "mistake", NOON) == 0
        assert await wallet.revoke(tx, await purse.account(tx), "unheard-of", NOON) is None
    await purse.use(4, at=NOON)
    assert await _alerts(purse) == []
    await purse.expire(NOON)
    await purse.use("0.5", at=NOON)
    assert await _alerts(purse) == []
    await purse.use("0.5", at=NOON)
    assert await _alerts(purse) == [(3, 50)]
    await purse.adds_up()


async def test_a_low_balance_is_told_once_after_each_credit(ledger: Ledger) -> None:
    purse = await Purse(ledger).open(low_balance_usd="5")
    await purse.give(10, "first")
    await purse.use(5)
    assert await purse.notices("low_balance") == []
    await purse.use("0.25")
    await purse.use("0.25")
    (notice,) = await purse.notices("low_balance")
    assert notice.message.startswith("The prepaid balance is $4.75, below $5. ")
    await purse.give(5, "second")
    await purse.use(1)
    assert len(await purse.notices("low_balance")) == 1
    await purse.use(8)
    assert len(await purse.notices("low_balance")) == 2


async def test_a_falling_balance_opens_one_top_up_however_many_burn_at_once(ledger: Ledger) -> None:
    purse = await Purse(ledger).open(top_up=TOP_UP)
    await purse.give(20, "first")
    await purse.use(10)
    assert await purse.top_ups() == []
    burnt = await asyncio.gather(*(purse.use("0.1") for _ in range(30)))
    (opened,) = await purse.top_ups()
    assert (opened.amount_nano_usd, opened.automatic) == (nano(50), True)
    assert [each.news for each in burnt].count(True) == 1


async def test_what_was_paid_for_becomes_credit_once_and_the_next_may_follow(
    ledger: Ledger,
) -> None:
    purse = await Purse(ledger).open(top_up=TOP_UP)
    await purse.use(3)
    (first,) = await purse.top_ups()
    async with ledger.begin() as tx:
        await top_ups.attach_invoice(tx, first.top_up_id, "in_1")
        found = await top_ups.of_invoice(tx, "in_1")
        assert found is not None
        assert found.top_up_id == first.top_up_id

    async def paid() -> bool:
        async with ledger.begin() as tx:
            return await top_ups.granted(tx, first.top_up_id, NOON)

    assert sorted(await asyncio.gather(*(paid() for _ in range(5)))) == [False] * 4 + [True]
    assert await purse.balance() == 47
    (grant,) = await purse.rows(Grant)
    assert (grant.source, grant.expires_at) == (f"top-up:{first.top_up_id}", NOON + 365 * DAY)
    await purse.use(40)
    assert len(await purse.top_ups()) == 2


async def test_after_a_failure_nothing_is_bought_until_a_person_has_seen_to_it(
    ledger: Ledger,
) -> None:
    purse = await Purse(ledger).open(top_up=TOP_UP)
    await purse.use(1)
    (first,) = await purse.top_ups()

    async def fails() -> bool:
        async with ledger.begin() as tx:
            return await top_ups.failed(tx, first.top_up_id, "card declined", NOON)

    assert [await fails(), await fails()] == [True, False]
    (notice,) = await purse.notices("top_up_failed")
    assert "Credit of $50 could not be bought: card declined." in notice.message
    await purse.use(1)
    assert len(await purse.top_ups()) == 1
    async with ledger.begin() as tx:
        by_hand = await top_ups.open_top_up(tx, purse.customer, nano(5), automatic=False, at=NOON)
        assert by_hand is not None
        assert (
            await top_ups.open_top_up(tx, purse.customer, nano(5), automatic=False, at=NOON) is None
        )
        await top_ups.granted(tx, by_hand, NOON)
    await purse.use(1)
    assert [each.automatic for each in await purse.top_ups()] == [True, False, True]


async def test_money_that_comes_in_late_is_credit_all_the_same(ledger: Ledger) -> None:
    purse = await Purse(ledger).open(top_up=TOP_UP)
    await purse.use(1)
    (top_up,) = await purse.top_ups()
    async with ledger.begin() as tx:
        await top_ups.failed(tx, top_up.top_up_id, "not paid in time", NOON)
    async with ledger.begin() as tx:
        assert await top_ups.granted(tx, top_up.top_up_id, NOON)
    assert await purse.balance() == 49
    async with ledger.begin() as tx:
        assert not await top_ups.failed(tx, top_up.top_up_id, "and again", NOON)


async def _expire(ledger: Ledger, purse: Purse, now: datetime) -> Any:
    activities = WalletActivities(ledger, lambda: now)
    order = StepOrder(customer_id=purse.customer, now=now)
    return await ActivityEnvironment().run(activities.expire_grants, order)


async def test_expiry_makes_a_balance_low(ledger: Ledger) -> None:
    purse = await Purse(ledger).open(low_balance_usd="5", top_up=TOP_UP)
    await purse.give(4, "stays")
    await purse.give(50, "ends", expires_at=NOON)
    for _ in range(2):
        assert (await _expire(ledger, purse, NOON)).again_at is None
    assert len(await purse.notices("low_balance")) == len(await purse.top_ups()) == 1
    assert await purse.balance() == 4


async def test_expiry_waits_for_what_was_asked_for_before_it(ledger: Ledger) -> None:
    purse = await Purse(ledger).open()
    await purse.give(5, "ends", expires_at=NOON)
    answered = await purse.answered(1, at=NOON - timedelta(seconds=1))
    async with ledger.begin() as tx:
        before = NOON - timedelta(minutes=1)
        await reservations.reserve(
            tx, answered.key, conversation_id=None, nano_usd=nano(2), at=before
        )
    waiting = await _expire(ledger, purse, NOON)
    assert waiting.again_at > NOON
    await purse.record(answered)
    assert (await _expire(ledger, purse, waiting.again_at)).again_at is None
    assert await purse.left() == {"ends": 0}
    assert (await purse.moved())[1:] == [("usage", "ends", -1), ("expired", "ends", -4)]


async def test_expiry_does_not_wait_for_ever(ledger: Ledger) -> None:
    purse = await Purse(ledger).open()
    await purse.give(5, "ends", expires_at=NOON)
    stuck = await purse.answered(1, at=NOON - timedelta(seconds=1))
    async with ledger.begin() as tx:
        before = NOON - timedelta(minutes=1)
        await reservations.reserve(tx, stuck.key, conversation_id=None, nano_usd=1, at=before)
    late = NOON + reservations.LAPSE
    assert (await _expire(ledger, purse, late)).again_at is None
    await purse.record(stuck)
    assert await purse.balance(late) == -1
