"""Admission by the balance: what it lets in, and that nobody spends what another has reserved."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal

from temporalio.exceptions import ApplicationError

from tallystick.contracts import Admission, RequestKey
from tallystick.errors import BALANCE_EXHAUSTED, ROOM_OCCUPIED, SPEND_CAP_REACHED
from tallystick.ledger import customers, reservations, wallet
from tallystick.ledger.account_tables import GrantKind
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Customer
from tests.guards.desk import Desk, open_desk
from tests.guards.room import reserved
from tests.wallet.purse import DAY, Purse, add_plan, nano

MOST = Decimal("0.0101")
"""A little more than what a request of the desk may be charged: 1,000 tokens of $0.00001 each."""


@asynccontextmanager
async def _prepaid(
    ledger: Ledger, usd: str | Decimal, **agreed: str
) -> AsyncIterator[tuple[Purse, Desk]]:
    purse = await Purse(ledger).open(**agreed)
    await purse.give(str(usd), "first", at=datetime.now(UTC) - DAY)
    async with open_desk(ledger) as desk:
        yield purse, desk


async def test_a_balance_lets_in_what_it_can_pay_and_says_what_it_lacks(ledger: Ledger) -> None:
    async with _prepaid(ledger, MOST) as (purse, desk):
        assert (await desk.admit("r-1")).reserved
        assert (await desk.refused("r-2")).type == ROOM_OCCUPIED.type
        assert (await desk.refused("r-3", max_tokens=2_000)).type == BALANCE_EXHAUSTED.type
        await purse.use("0.0001", at=datetime.now(UTC))
        refused = await desk.refused("r-4", max_tokens=1_005)
        assert refused.type == BALANCE_EXHAUSTED.type
        assert refused.message.startswith(
            "the prepaid balance of $0.01 has no room: this request may be charged up to $0.01"
        )
        assert refused.message.endswith(
            "lower max_tokens, or add credit with `tallystick wallet top-up acme USD`"
        )
        assert refused.details[0]["limit_usd"] == "0.01"


async def test_what_has_expired_lets_nobody_in(ledger: Ledger) -> None:
    async with _prepaid(ledger, "0.001") as (purse, desk):
        now = datetime.now(UTC)
        await purse.give(5, "gone", at=now - 2 * DAY, expires_at=now - DAY)
        assert (await desk.refused("r-1")).type == BALANCE_EXHAUSTED.type


async def test_a_spend_cap_holds_beside_the_balance(ledger: Ledger) -> None:
    async with _prepaid(ledger, "100", spend_cap_usd="0.005") as (_, desk):
        assert (await desk.refused("r-1")).type == SPEND_CAP_REACHED.type


async def test_a_prepaid_customer_without_an_account_is_told_what_opens_it(ledger: Ledger) -> None:
    await add_plan(ledger, "credits", {"model": "prepaid"})
    async with ledger.begin() as tx:
        await customers.add(tx, Customer(customer_id="acme", name="acme", plan="credits"))
    async with open_desk(ledger) as desk:
        refused = await desk.refused("r-1")
        assert refused.type == BALANCE_EXHAUSTED.type
        assert "`tallystick customer open acme`" in refused.message
        assert await reserved(ledger) == {}


async def test_what_is_burnt_and_reserved_never_passes_the_balance(ledger: Ledger) -> None:
    """Requests are admitted, burn less than they reserved, and others are admitted meanwhile."""
    async with _prepaid(ledger, MOST * 4) as (purse, desk):
        now = datetime.now(UTC)

        async def request(number: int) -> bool:
            (end,) = await asyncio.gather(desk.admit(f"r-{number}"), return_exceptions=True)
            if not isinstance(end, Admission):
                assert isinstance(end, ApplicationError)
                assert end.type in (ROOM_OCCUPIED.type, BALANCE_EXHAUSTED.type)
                return False
            key = RequestKey(customer_id="acme", request_id=f"r-{number}")
            new = await purse.answered(str(MOST / 2), at=now, key=key)
            assert await _unreserved(ledger) >= 0
            await purse.record(new)
            return True

        admitted = 0
        for turn in range(6):
            ends = await asyncio.gather(*(request(turn * 20 + each) for each in range(20)))
            admitted += ends.count(True)
            assert await _unreserved(ledger) >= 0
        # Each burns half of what it reserves, so all but the last half is spent.
        assert admitted == 7
        assert await purse.balance(now) == MOST * 4 - admitted * MOST / 2
        assert await reserved(ledger) == {}


async def _unreserved(ledger: Ledger) -> int:
    async with ledger.begin() as tx:
        funds = await wallet.funds(tx, "acme", datetime.now(UTC))
    return funds.balance_nano_usd - funds.reserved_nano_usd


async def test_a_burn_is_seen_as_reserved_or_burnt_and_never_as_neither(ledger: Ledger) -> None:
    purse, now = await Purse(ledger).open(), datetime.now(UTC)
    seen: set[int] = set()

    async def look(until: asyncio.Task[None]) -> None:
        async with ledger.each() as tx:
            while not until.done():
                funds = await wallet.funds(tx, "acme", now)
                seen.add(funds.balance_nano_usd - funds.reserved_nano_usd)

    async def serve() -> None:
        for number in range(30):
            key = RequestKey(customer_id="acme", request_id=f"r-{number}")
            new = await purse.answered(1, at=now, key=key)
            async with ledger.begin() as tx:  # all that there is gets reserved at once
                account = await purse.account(tx)
                source = f"grant-{number}"
                await wallet.grant(
                    tx, account, kind=GrantKind.PAID, nano_usd=nano(1), source=source, at=now
                )
                await reservations.reserve(tx, key, conversation_id=None, nano_usd=nano(1), at=now)
            await purse.record(new)

    serving = asyncio.create_task(serve())
    await asyncio.gather(serving, *(look(serving) for _ in range(2)))
    assert seen == {0}
