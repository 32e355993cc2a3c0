"""What a charge burns: which grants, in which order, until when, and what happens beyond them."""

import asyncio
from datetime import timedelta
from decimal import Decimal

from tallystick.ledger.account_tables import GrantKind
from tallystick.ledger.database import Ledger
from tests.wallet.purse import DAY, NOON, Purse

MOMENT = timedelta(microseconds=1)


async def test_what_was_given_away_burns_before_what_was_paid(ledger: Ledger) -> None:
    purse = await Purse(ledger).open()
    await purse.give(5, "paid")
    await purse.give(3, "promotion", kind=GrantKind.PROMOTIONAL)
    await purse.use(2)
    assert await purse.left() == {"paid": 5, "promotion": 1}
    await purse.use(2)
    assert await purse.left() == {"paid": 4, "promotion": 0}
    await purse.adds_up()


async def test_priority_goes_before_expiry_and_expiry_before_age(ledger: Ledger) -> None:
    purse = await Purse(ledger).open()
    await purse.give(1, "old", at=NOON - 9 * DAY)
    await purse.give(1, "young", at=NOON - 8 * DAY)
    await purse.give(1, "late", expires_at=NOON + 2 * DAY)
    await purse.give(1, "soon", expires_at=NOON + DAY)
    await purse.give(1, "first", priority=1)
    await purse.use("4.5")
    burnt = [source for kind, source, _ in await purse.moved() if kind == "usage"]
    assert burnt == ["first", "soon", "late", "old", "young"]
    assert await purse.balance() == Decimal("0.5")


async def test_a_grant_covers_until_the_instant_it_expires(ledger: Ledger) -> None:
    purse = await Purse(ledger).open()
    await purse.give(5, "ends", expires_at=NOON)
    await purse.give(5, "stays")
    await purse.use(1, at=NOON - MOMENT)
    assert await purse.left() == {"ends": 4, "stays": 5}
    await purse.use(1, at=NOON)
    assert await purse.left() == {"ends": 4, "stays": 4}
    assert (await purse.balance(NOON - MOMENT), await purse.balance(NOON)) == (8, 4)
    # Recorded late, it burns what covered it when it was served.
    await purse.use(1, at=NOON - MOMENT)
    assert await purse.left() == {"ends": 3, "stays": 4}
    await purse.adds_up()


async def test_what_has_expired_is_entered_once_at_its_instant(ledger: Ledger) -> None:
    purse = await Purse(ledger).open()
    await purse.give(5, "ends", expires_at=NOON)
    await purse.give(5, "stays")
    await purse.use(1, at=NOON - DAY)
    for now in (NOON - MOMENT, NOON + DAY, NOON + DAY):
        await purse.expire(now)
    assert [each for each in await purse.moved() if each[0] == "expired"] == [
        ("expired", "ends", -4)
    ]
    assert (await purse.balance(NOON - MOMENT)) == 5  # what is entered is gone from every view
    await purse.adds_up()


async def test_the_next_credit_repays_an_overdraft_first(ledger: Ledger) -> None:
    purse = await Purse(ledger).open()
    await purse.give(1, "small")
    await purse.use(4)
    assert await purse.balance() == -3
    await purse.use(1)
    assert await purse.balance() == -4
    await purse.give(1, "drop")
    assert await purse.balance() == -3
    await purse.give(10, "large")
    assert await purse.balance() == 7
    assert await purse.left() == {"small": 0, "drop": 0, "large": 7}
    assert (await purse.moved())[-3:] == [
        ("granted", "large", 10),
        ("overdraft_repaid", "large", -3),
        ("overdraft_repaid", None, 3),
    ]
    await purse.adds_up()


async def test_a_source_gives_once(ledger: Ledger) -> None:
    purse = await Purse(ledger).open()
    given = await asyncio.gather(*(purse.give(5, "top-up:17") for _ in range(8)))
    assert sorted(given) == [False] * 7 + [True]
    assert await purse.balance() == 5


async def test_a_record_burns_once_however_often_it_is_recorded(ledger: Ledger) -> None:
    purse = await Purse(ledger).open()
    await purse.give(5, "paid")
    answered = await purse.answered(2)
    ends = await asyncio.gather(*(purse.record(answered) for _ in range(5)))
    assert sorted(end.recorded.written for end in ends) == [False] * 4 + [True]
    assert {end.recorded.record.usage_record_id for end in ends} == {
        ends[0].recorded.record.usage_record_id
    }
    assert await purse.balance() == 3


async def test_many_burns_at_once_lose_nothing(ledger: Ledger) -> None:
    purse = await Purse(ledger).open()
    for number in range(6):
        await purse.give(1, f"grant-{number}", priority=number % 3)
    await asyncio.gather(*(purse.use("0.07") for _ in range(100)))
    assert await purse.balance() == -1
    await purse.adds_up()
    entries = await purse.moved()
    assert sum(amount for kind, _, amount in entries if kind == "usage") == -7


async def test_usage_without_a_charge_moves_nothing(ledger: Ledger) -> None:
    purse = await Purse(ledger).open()
    await purse.give(5, "paid")
    await purse.use(0)
    await purse.use(None)
    assert await purse.balance() == 5
    assert len(await purse.moved()) == 1
