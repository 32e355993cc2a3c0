"""Content and usage record are one transaction, and an erasure misses no request in flight."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import DBAPIError
from temporalio.client import Client as TemporalClient
from temporalio.testing import ActivityEnvironment

from activities import payloads
from activities.ledger import LedgerActivities
from activities.payloads import PayloadActivities
from tallystick.contracts import RecordOrder, RequestKey
from tallystick.ledger import attempts, contents, usage
from tallystick.ledger.attempts import Begun, Completion, NewAttempt
from tallystick.ledger.content_tables import RequestContent
from tallystick.ledger.contents import Content
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Outcome
from tests.contents.stand import keep, kept, stored
from tests.rerate.stand import SONNET, reply
from tests.support.records import served
from tests.wallet.purse import NOON, Purse

PARAMS: dict[str, Any] = {
    "model": SONNET,
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "What is a tally stick?"}],
}
REPLY = reply(prompt=10, answer=10)


def _key(request_id: str) -> RequestKey:
    return RequestKey(customer_id="acme", request_id=request_id)


async def _answered(ledger: Ledger, request_id: str) -> RecordOrder:
    new = NewAttempt(_key(request_id), "f", SONNET, None, 1, 1)
    async with ledger.begin() as tx:
        begun = await attempts.begin(tx, new, NOON, max_unknown=5)
        assert isinstance(begun, Begun)
        done = Completion(Outcome.SUCCEEDED, usage=REPLY["usage"], reply=REPLY)
        await attempts.complete(tx, begun.attempt_id, done, NOON)
    return RecordOrder(key=new.key, attempt_id=begun.attempt_id, params=PARAMS)


async def _record(ledger: Ledger, order: RecordOrder) -> None:
    await ActivityEnvironment().run(LedgerActivities(ledger).record_usage, order)


@pytest.mark.parametrize("plan", ["pass-through", "credits"])
async def test_what_cannot_be_kept_is_not_billed_either_until_it_can(
    ledger: Ledger, plan: str
) -> None:
    purse = await Purse(ledger, plan="credits").open()
    await purse.give(5, "paid")
    if plan != "credits":
        async with ledger.begin() as tx:
            await tx.execute(text("UPDATE customers SET plan = 'pass-through'"))
    await keep(ledger, "acme", 30)
    order = await _answered(ledger, "r-1")
    async with ledger.begin() as tx:
        await tx.execute(text("ALTER TABLE request_contents ADD CONSTRAINT no_room CHECK (false)"))
    with pytest.raises(DBAPIError, match="no_room"):
        await _record(ledger, order)
    async with ledger.begin() as tx:
        assert await usage.find(tx, order.key) is None
        assert (await attempts.get(tx, order.attempt_id)).reply == REPLY
        assert (await tx.execute(text("SELECT count(*) FROM meter_events"))).scalar_one() == 0
    assert await purse.balance() == 5

    async with ledger.begin() as tx:
        await tx.execute(text("ALTER TABLE request_contents DROP CONSTRAINT no_room"))
    for _ in range(2):
        await _record(ledger, order)
    async with ledger.begin() as tx:
        assert await usage.find(tx, order.key) is not None
    assert await kept(ledger, order.key) == (PARAMS, REPLY)
    assert len(await stored(ledger)) == 1
    assert (await purse.balance() < 5) == (plan == "credits")


async def test_switched_off_before_it_is_recorded_it_is_not_kept(ledger: Ledger) -> None:
    await Purse(ledger).open()
    await keep(ledger, "acme", 30)
    order = await _answered(ledger, "r-1")  # admitted while it was on
    await keep(ledger, "acme", None)
    await _record(ledger, order)
    assert await stored(ledger) == []


async def test_an_erasure_waits_for_a_request_that_is_being_recorded(ledger: Ledger) -> None:
    await Purse(ledger).open()
    await keep(ledger, "acme", 30)
    async with ledger.begin() as tx:
        new = await served(tx, _key("r-1"), NOON, 1)
    async with ledger.begin() as recording:
        days = await contents.days_held(recording, "acme")
        assert days == 30
        await usage.record(recording, new)
        await contents.keep(recording, new.key, Content("{}", "{}"), days)
        erasing = asyncio.create_task(keep(ledger, "acme", None, erase=True))
        await _until_somebody_waits(ledger)
    assert await erasing == 1
    assert await stored(ledger) == []


async def _until_somebody_waits(ledger: Ledger) -> None:
    waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    async with asyncio.timeout(60):
        while True:
            async with ledger.begin() as tx:
                if (await tx.execute(waiting)).scalar_one():
                    return
            await asyncio.sleep(0.02)


async def test_it_goes_when_its_date_has_come_however_much_it_is(
    ledger: Ledger, temporal: TemporalClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payloads, "CONTENTS_AT_ONCE", 2)
    await Purse(ledger).open()
    await keep(ledger, "acme", 1)
    for number in range(6):
        await _record(ledger, await _answered(ledger, f"r-{number}"))
    sweep = PayloadActivities(ledger, temporal).sweep_payloads
    assert await ActivityEnvironment().run(sweep) == 0
    async with ledger.begin() as tx:
        old = update(RequestContent).where(text("request_id < 'r-5'"))
        await tx.execute(old.values(goes_at=datetime.now(UTC)))
    assert await kept(ledger, _key("r-0")) is None  # gone before it is swept
    assert await ActivityEnvironment().run(sweep) == 5
    assert await kept(ledger, _key("r-5")) == (PARAMS, REPLY)


async def test_erasing_one_customers_content_leaves_that_of_others_and_every_record(
    ledger: Ledger,
) -> None:
    await Purse(ledger).open()
    await Purse(ledger, customer="bolt").open()
    await keep(ledger, "acme", 30)
    await keep(ledger, "bolt", 30)
    await _record(ledger, await _answered(ledger, "r-1"))
    async with ledger.begin() as tx:
        new = await served(tx, RequestKey(customer_id="bolt", request_id="r-1"), NOON, 1)
        await usage.record(tx, new)
        await contents.keep(tx, new.key, Content("{}", "{}"), 30)
    assert await keep(ledger, "acme", 30, erase=True) == 1
    assert [row.split(",")[0] for row in await stored(ledger)] == ["(bolt"]
    async with ledger.begin() as tx:
        assert await usage.find(tx, _key("r-1")) is not None
    await _record(ledger, await _answered(ledger, "r-2"))  # and goes on being kept
    assert await kept(ledger, _key("r-2")) == (PARAMS, REPLY)
