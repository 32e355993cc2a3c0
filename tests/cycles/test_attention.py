"""Which accounts the sweep wakes: those with something waiting, and no others."""

from datetime import UTC, datetime, timedelta

from tallystick.ledger import accounts, attention, customers, plan_moves, top_ups
from tallystick.ledger.database import Ledger
from tallystick.ledger.notices import mark_delivered, raise_notice, waiting
from tallystick.ledger.tables import Customer

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


async def _waiting(ledger: Ledger, now: datetime = NOW) -> list[str]:
    async with ledger.begin() as tx:
        return await attention.waiting_accounts(tx, now, 100)


async def _quiet_account(ledger: Ledger, name: str) -> None:
    async with ledger.begin() as tx:
        await customers.add(tx, Customer(customer_id=name, name=name, plan="pass-through"))
        await accounts.open_account(tx, name, NOW, "UTC", NOW)
        await accounts.set_aligned_plan(tx, name, "pass-through")


async def test_an_account_with_nothing_to_do_is_left_alone(ledger: Ledger) -> None:
    await _quiet_account(ledger, "acme")
    assert await _waiting(ledger) == []


async def test_an_account_whose_cycle_was_never_started_is_found(ledger: Ledger) -> None:
    async with ledger.begin() as tx:
        await customers.add(tx, Customer(customer_id="acme", name="acme", plan="pass-through"))
        await accounts.open_account(tx, "acme", NOW, "UTC", NOW)
    assert await _waiting(ledger) == ["acme"]


async def test_a_move_that_stripe_has_not_been_told_of_is_found(ledger: Ledger) -> None:
    await _quiet_account(ledger, "acme")
    async with ledger.begin() as tx:
        await plan_moves.add(tx, "acme", "hybrid", NOW + timedelta(days=10))
    assert await _waiting(ledger) == ["acme"]
    async with ledger.begin() as tx:
        await accounts.set_aligned_plan(tx, "acme", "hybrid")
    assert await _waiting(ledger) == []


async def test_credit_to_buy_and_notices_to_deliver_are_found(ledger: Ledger) -> None:
    await _quiet_account(ledger, "acme")
    await _quiet_account(ledger, "bolt")
    async with ledger.begin() as tx:
        await top_ups.open_top_up(tx, "acme", 10**9, automatic=False, at=NOW)
        told = {"kind": "k", "audience": "customer", "message": "m", "facts": {}, "at": NOW}
        await raise_notice(tx, "bolt", key="one", **told)
    assert await _waiting(ledger) == ["acme", "bolt"]
    async with ledger.begin() as tx:
        for notice in await waiting(tx, "bolt"):
            assert notice.notice_id is not None
            await mark_delivered(tx, notice.notice_id, NOW)
    assert await _waiting(ledger) == ["acme"]


async def test_an_end_that_has_come_is_found(ledger: Ledger) -> None:
    await _quiet_account(ledger, "acme")
    async with ledger.begin() as tx:
        assert await accounts.set_cancel_at(tx, "acme", NOW + timedelta(days=3))
    assert await _waiting(ledger) == []
    assert await _waiting(ledger, NOW + timedelta(days=3)) == ["acme"]
