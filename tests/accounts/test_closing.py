"""Closing: each record is in exactly one period, and none is dated into a closed one."""

import asyncio
import random
import threading
from datetime import datetime, timedelta

from activities.accounts import IN_FLIGHT_PATIENCE, LAST_PATIENCE, AccountActivities
from tallystick.contracts import RequestKey
from tallystick.ledger import accounts, reservations, usage
from tallystick.ledger.database import Ledger
from tests.accounts.stand import (
    ANCHOR,
    APRIL,
    CUSTOMER,
    FEBRUARY,
    MARCH,
    PATIENCE,
    account_of,
    answered,
    billed,
    calls,
    close,
    open_account,
    order,
    record,
    someone_waits,
)

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


async def test_what_is_recorded_while_the_books_close_is_waited_for(ledger: Ledger) -> None:
    await open_account(ledger)
    new = await answered(ledger, FEBRUARY - HOUR)
    async with ledger.begin() as recording:
        recorded = await usage.record(recording, new)
        closing = asyncio.create_task(_closed(ledger, FEBRUARY))
        await someone_waits(ledger)
        assert not closing.done()
    await closing
    assert recorded.record.billed_at == FEBRUARY - HOUR
    assert await billed(ledger, None, FEBRUARY) == {new.key.request_id}


async def test_what_is_recorded_once_they_close_waits_and_is_billed_next(ledger: Ledger) -> None:
    await open_account(ledger)
    async with ledger.begin() as closing:
        await close(closing, FEBRUARY)
        recording = asyncio.create_task(record(ledger, FEBRUARY - HOUR))
        await someone_waits(ledger)
        assert not recording.done()
    assert await recording == FEBRUARY
    assert await billed(ledger, None, FEBRUARY) == set()


async def _closed(ledger: Ledger, end: datetime) -> None:
    async with ledger.begin() as tx:
        await close(tx, end)


async def test_no_period_gains_or_loses_a_record_once_it_is_closed(
    ledger: Ledger, database_url: str
) -> None:
    """Threads with connections of their own record without pause while three periods close."""
    await open_account(ledger)
    stop = threading.Event()
    recorders = [
        asyncio.create_task(asyncio.to_thread(asyncio.run, _record(database_url, seed, stop)))
        for seed in range(4)
    ]
    periods = [(None, FEBRUARY), (FEBRUARY, MARCH), (MARCH, APRIL)]
    stated: list[set[str]] = []
    try:
        for start, end in periods:
            await _some(ledger, start, end)
            await _closed(ledger, end)
            stated.append(await billed(ledger, start, end))
        await _some(ledger, APRIL, None)
    finally:
        stop.set()
        recorded = set[str]().union(*await asyncio.gather(*recorders))
    assert stated == [await billed(ledger, *period) for period in periods]
    stated.append(await billed(ledger, APRIL, None))
    assert set[str]().union(*stated) == recorded
    assert sum(map(len, stated)) == len(recorded)


async def _some(ledger: Ledger, start: datetime | None, end: datetime | None) -> None:
    async with asyncio.timeout(PATIENCE):
        while len(await billed(ledger, start, end)) < 30:
            await asyncio.sleep(0.01)


async def _record(url: str, seed: int, stop: threading.Event) -> set[str]:
    """Record usage of any instant of four months until told to stop."""
    chance, ledger, recorded = random.Random(seed), Ledger(url, pool_size=2), set[str]()
    while not stop.is_set():
        new = await answered(ledger, ANCHOR + chance.random() * (APRIL + 30 * 24 * HOUR - ANCHOR))
        async with ledger.each() as tx:
            await usage.record(tx, new)
        recorded.add(new.key.request_id)
    await ledger.close()
    return recorded


async def test_books_only_close_forward(ledger: Ledger) -> None:
    await open_account(ledger)
    async with ledger.begin() as tx:
        assert await accounts.close_until(tx, CUSTOMER, MARCH)
        assert not await accounts.close_until(tx, CUSTOMER, MARCH)
        assert not await accounts.close_until(tx, CUSTOMER, FEBRUARY)
        assert not await accounts.set_invoiced_until(tx, CUSTOMER, APRIL)
        assert await accounts.set_invoiced_until(tx, CUSTOMER, FEBRUARY)
    account = await account_of(ledger)
    assert (account.closed_until, account.invoiced_until) == (MARCH, FEBRUARY)


async def test_an_account_is_opened_once_and_on_a_whole_minute(ledger: Ledger) -> None:
    first = await open_account(ledger, anchor=ANCHOR + timedelta(seconds=59, microseconds=1))
    assert first.anchor == first.closed_until == first.invoiced_until == ANCHOR
    assert (await open_account(ledger, anchor=MARCH, time_zone="Asia/Tokyo")) == first


async def test_a_period_closes_when_its_requests_are_done_or_have_had_their_time(
    ledger: Ledger,
) -> None:
    await open_account(ledger)
    close_books = AccountActivities(ledger).close_books
    early = await close_books(order(FEBRUARY - MINUTE, 1))
    assert early.again_at == FEBRUARY

    await calls(ledger, FEBRUARY - MINUTE)
    waiting = RequestKey(customer_id=CUSTOMER, request_id="waiting")
    async with ledger.begin() as tx:
        await reservations.reserve(
            tx, waiting, conversation_id=None, nano_usd=1, at=FEBRUARY - MINUTE
        )
    await calls(ledger, FEBRUARY + MINUTE)  # of the next period
    await calls(ledger, FEBRUARY - 2 * LAST_PATIENCE)  # given up long ago

    first = await close_books(order(FEBRUARY + 5 * MINUTE, 1))
    assert first.words.startswith("2 request(s) ")
    assert first.again_at == FEBRUARY + 6 * MINUTE
    async with ledger.begin() as tx:
        await reservations.release(tx, waiting)
    second = await close_books(order(FEBRUARY + IN_FLIGHT_PATIENCE - MINUTE / 2, 1))
    assert second.again_at == FEBRUARY + IN_FLIGHT_PATIENCE
    assert (await account_of(ledger)).closed_until == ANCHOR

    third = await close_books(order(FEBRUARY + IN_FLIGHT_PATIENCE, 1))
    assert third.again_at is None
    assert (await account_of(ledger)).closed_until == FEBRUARY
    again = await close_books(order(FEBRUARY + HOUR, 1))
    assert again.again_at is None


async def test_a_last_period_waits_longer_and_takes_what_was_served_after_it(
    ledger: Ledger,
) -> None:
    await open_account(ledger)
    cancel_at = FEBRUARY - HOUR
    async with ledger.begin() as tx:
        assert await accounts.set_cancel_at(tx, CUSTOMER, cancel_at)
    await calls(ledger, cancel_at - MINUTE)
    close_books = AccountActivities(ledger).close_books
    waits = await close_books(order(cancel_at + LAST_PATIENCE - MINUTE / 2, 1))
    assert waits.again_at == cancel_at + LAST_PATIENCE

    assert await record(ledger, cancel_at + MINUTE) < cancel_at
    assert (await close_books(order(cancel_at + LAST_PATIENCE, 1))).again_at is None
    assert (await account_of(ledger)).closed_until == cancel_at
    assert await record(ledger, cancel_at + MINUTE) == cancel_at  # and no period has it
