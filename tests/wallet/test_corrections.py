"""Corrections of prepaid usage move the wallet, in both directions and once each."""

from decimal import Decimal

from tallystick.ledger import accounts, plan_moves, wallet
from tallystick.ledger.account_tables import GrantKind
from tallystick.ledger.database import Ledger
from tests.wallet.purse import DAY, NOON, Purse, add_plan


async def test_what_was_charged_too_little_burns_and_too_much_comes_back(ledger: Ledger) -> None:
    purse = await Purse(ledger).open()
    await purse.give(10, "paid")
    request = (await purse.use(4)).recorded.record.request_id
    assert await purse.correct(request, 2)
    assert not await purse.correct(request, 2)
    assert await purse.left() == {"paid": 4}
    assert await purse.correct(request, -5, book="latest")
    assert await purse.left() == {"paid": 4, wallet.CORRECTIONS: 5}
    another = (await purse.use(1)).recorded.record.request_id
    assert await purse.correct(another, "-0.5")
    assert await purse.left() == {"paid": 3, wallet.CORRECTIONS: Decimal("5.5")}
    await purse.adds_up()


async def test_what_comes_back_repays_the_overdraft_first(ledger: Ledger) -> None:
    purse = await Purse(ledger).open()
    await purse.give(1, "small")
    request = (await purse.use(4)).recorded.record.request_id
    assert await purse.correct(request, -2)
    assert await purse.balance() == -1
    assert await purse.left() == {"small": 0}
    assert await purse.correct(request, -2, book="latest")
    assert await purse.balance() == 1
    assert await purse.left() == {"small": 0, wallet.CORRECTIONS: 1}
    await purse.adds_up()


async def test_what_comes_back_outlives_the_grant_it_came_from(ledger: Ledger) -> None:
    purse = await Purse(ledger).open()
    await purse.give(5, "ends", kind=GrantKind.PROMOTIONAL, expires_at=NOON + DAY)
    request = (await purse.use(5)).recorded.record.request_id
    await purse.correct(request, -2)
    assert await purse.balance(NOON + 1_000 * DAY) == 2


async def test_a_first_price_burns_when_it_is_booked(ledger: Ledger) -> None:
    purse = await Purse(ledger).open()
    await purse.give(10, "paid")
    request = (await purse.use(None)).recorded.record.request_id
    assert await purse.balance() == 10
    await purse.correct(request, 3)
    assert await purse.balance() == 7
    assert (await purse.moved())[-1] == ("adjustment", "paid", -3)


async def test_the_wallet_corrects_what_it_has_paid_whatever_the_plan_is_now(
    ledger: Ledger,
) -> None:
    purse = await Purse(ledger).open(low_balance_usd="100")
    await purse.give(10, "paid")
    request = (await purse.use(4)).recorded.record.request_id
    told = len(await purse.notices("low_balance"))
    await add_plan(ledger, "metered", {"model": "pass-through"})
    async with ledger.begin() as tx:
        await accounts.lock(tx, purse.customer)
        await plan_moves.add(tx, purse.customer, "metered", NOON + DAY)
    await purse.correct(request, 1)
    assert await purse.balance() == 5
    # Nobody is told of a balance that nothing burns any more.
    assert len(await purse.notices("low_balance")) == told
