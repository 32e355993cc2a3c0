"""SIGKILL of the worker inside the transaction that records and burns: one bill, burnt once."""

import asyncio
import tempfile
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import psycopg

from tallystick.ledger import accounts, plan_moves
from tallystick.ledger.account_tables import WalletEntry
from tallystick.ledger.database import Ledger
from tests.crash.drill import PATIENCE, Drill, drill
from tests.wallet.purse import DAY, Purse, add_plan

_WAITS = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
AND wait_event_type = 'Lock' AND query LIKE 'INSERT INTO wallets%'
"""


async def test_a_worker_killed_while_it_records_leaves_one_bill_that_was_burnt_once() -> None:
    with tempfile.TemporaryDirectory(prefix="tallystick-", ignore_cleanup_errors=True) as home:
        async with drill(Path(home)) as run:
            ledger = Ledger(run.stack.database_url, pool_size=2)
            await add_plan(ledger, "credits", {"model": "prepaid", "markup": "0"})
            purses = {name: await _prepay(ledger, name) for name in ("acme", "bolt", "crux")}
            worker = await run.start_worker()
            await _stop_and_kill(run, worker)
            await run.start_worker()
            replies = await run.finished()
            now = datetime.now(UTC)
            for (customer, _), reply in replies.items():
                purse, charge = purses[customer], reply.bill.charge_usd
                assert charge is not None
                assert await purse.balance(now) == 1 - charge
                usage = [row for row in await purse.rows(WalletEntry) if row.kind == "usage"]
                assert len(usage) == 1
                await purse.adds_up(now)
            await ledger.close()


async def _prepay(ledger: Ledger, customer: str) -> Purse:
    now = datetime.now(UTC)
    async with ledger.begin() as tx:
        await accounts.open_account(tx, customer, now - DAY, "UTC", now)
        await plan_moves.add(tx, customer, "credits", now)
    purse = Purse(ledger, customer, "credits")
    await purse.give(Decimal(1), "first", at=now)
    return purse


async def _stop_and_kill(run: Drill, worker: asyncio.subprocess.Process) -> None:
    """Kill it before one record, behind another that is committed, and between record and burn."""
    before = await run.stops.set("before-the-record", "record", "before")
    committed = await run.stops.set("behind-the-commit", "record", "committed")
    plain = run.stack.database_url.replace("postgresql+psycopg://", "postgresql://")
    async with (
        await psycopg.AsyncConnection.connect(plain) as locking,
        # Within one transaction the activity of others is read once and stays as it was.
        await psycopg.AsyncConnection.connect(plain, autocommit=True) as watching,
    ):
        await locking.execute("SELECT * FROM wallets WHERE customer_id = 'crux' FOR UPDATE")
        run.ask("before-the-record", customer="acme")
        run.ask("behind-the-commit", customer="bolt")
        run.ask("recorded-not-burnt", customer="crux")
        await before.reached()
        await committed.reached()
        async with asyncio.timeout(PATIENCE):
            while not (await (await watching.execute(_WAITS)).fetchone() or [0])[0]:
                await asyncio.sleep(0.02)
        await run.stack.kill_worker(worker)
        await before.lift()
        await committed.lift()
