"""Prepaid customers in the real house: what is answered is burnt, nothing beyond the balance."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import pytest_asyncio
from temporalio.client import Client as TemporalClient

from tallystick.client import BilledMessage
from tallystick.errors import BALANCE_EXHAUSTED, LimitReachedError
from tallystick.ledger import accounts, plan_moves, wallet
from tallystick.ledger.account_tables import WalletEntry
from tests.guards.room import CERTAIN, reserved
from tests.support.house import House, open_house
from tests.wallet.purse import DAY, Purse, add_plan

BODY = {"messages": [{"role": "user", "content": "What is a tally stick?"}], **CERTAIN}
REQUESTS, ROOM_FOR = 60, 12


@pytest_asyncio.fixture
async def house(temporal: TemporalClient, database_url: str) -> AsyncIterator[House]:
    async with open_house(temporal, database_url, "prepaid") as opened:
        yield opened


async def prepay(house: House, **agreed: str) -> Purse:
    """Put the house's customer on a prepaid plan at cost, with an account and no credit yet."""
    await add_plan(house.ledger, "credits", {"model": "prepaid", "markup": "0", **agreed})
    now = datetime.now(UTC)
    async with house.ledger.begin() as tx:
        await accounts.open_account(tx, house.customer, now - DAY, "UTC", now)
        await plan_moves.add(tx, house.customer, "credits", now)
    return Purse(house.ledger, house.customer, "credits")


async def test_parallel_requests_spend_a_balance_to_the_last_and_never_more(house: House) -> None:
    purse = await prepay(house)
    await purse.give(1, "to find out", at=datetime.now(UTC))
    charge = (await house.ask("request-00", **BODY)).bill.charge_usd
    assert charge is not None
    assert await purse.balance(datetime.now(UTC)) == 1 - charge
    async with house.ledger.begin() as tx:
        await wallet.revoke(tx, await purse.account(tx), "to find out", datetime.now(UTC))
    # In grants that do not fit the requests: most are burnt by two of them.
    total, grants = charge * ROOM_FOR, 5
    for number in range(grants):
        await purse.give(total / grants, f"grant-{number}", at=datetime.now(UTC))

    async def ask(number: int) -> BilledMessage | LimitReachedError:
        try:
            return await house.client.messages.create(
                customer_id=house.customer,
                request_id=f"request-{number:02}",
                model="claude-sonnet-5-5",
                **BODY,
            )
        except LimitReachedError as error:
            return error

    ends = await asyncio.gather(*(ask(number) for number in range(1, REQUESTS)))

    served = [end for end in ends if isinstance(end, BilledMessage)]
    refused = [end for end in ends if isinstance(end, LimitReachedError)]
    assert {error.type for error in refused} == {BALANCE_EXHAUSTED.type}
    assert [end.bill.charge_usd for end in served] == [charge] * ROOM_FOR
    assert await purse.balance(datetime.now(UTC)) == 0
    assert await reserved(house.ledger) == {}
    burnt: dict[int, int] = {}
    for entry in await purse.rows(WalletEntry):
        if entry.kind == "usage":
            record = entry.usage_record_id
            burnt[record] = burnt.get(record, 0) - entry.amount_nano_usd
    assert list(burnt.values()) == [int(charge * 10**9)] * (ROOM_FOR + 1)
    await purse.adds_up(datetime.now(UTC))
    assert len(await house.claude.journal()) == ROOM_FOR + 1


async def test_a_refusal_says_what_helps_and_credit_does(house: House) -> None:
    purse = await prepay(house)
    with pytest.raises(LimitReachedError, match=r"balance of \$0 has no room.* wallet top-up"):
        await house.ask("r-1", **BODY)
    await purse.give(1, "by hand", at=datetime.now(UTC))
    bill = (await house.ask("r-2", **BODY)).bill
    assert bill.charge_usd is not None
    assert await purse.balance(datetime.now(UTC)) == 1 - bill.charge_usd
    await house.done("r-2")
    # Stripe is told of prepaid usage too.
    assert await house.meter_events("r-2") != []
