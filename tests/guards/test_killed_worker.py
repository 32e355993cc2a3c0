"""A worker dies with a hundred reservations open; however their requests end, none is left."""

import asyncio
import tempfile
from decimal import Decimal
from pathlib import Path

from tallystick.client import BilledMessage
from tallystick.contracts import request_workflow_id
from tallystick.errors import ClaudeError
from tallystick.ledger import customers
from tallystick.ledger.database import Ledger
from tests.crash.drill import PATIENCE, drill
from tests.guards.room import reserved

SERVED, FAILED, CANCELLED = 60, 30, 10


async def test_a_killed_workers_reservations_are_gone_once_its_requests_have_ended() -> None:
    with tempfile.TemporaryDirectory(prefix="tallystick-", ignore_cleanup_errors=True) as home:
        async with drill(Path(home)) as run:
            ledger = Ledger(run.stack.database_url, pool_size=2)
            async with ledger.begin() as tx:
                await customers.set_spend_cap(tx, "acme", Decimal(1_000))
            everything = await run.claude.hold(match="", times=None)
            worker = await run.start_worker(TALLYSTICK_CLAUDE_CONCURRENCY="100")
            for kind, number in (("serve", SERVED), ("fail", FAILED), ("cancel", CANCELLED)):
                for each in range(number):
                    run.ask(f"{kind}-{each}", conversation_id=f"talk-{each % 7}")
            await _until_reserved(ledger, SERVED + FAILED + CANCELLED)

            await run.stack.kill_worker(worker)
            assert len(await reserved(ledger)) == SERVED + FAILED + CANCELLED
            await run.claude.order("error_400", match="<fail-", times=None)
            await run.claude.release(everything)
            for each in range(CANCELLED):
                name = request_workflow_id("acme", f"cancel-{each}")
                await run.temporal.get_workflow_handle(name).cancel()
            await run.start_worker(TALLYSTICK_CLAUDE_CONCURRENCY="100")

            ends = await asyncio.gather(*run.asked.values(), return_exceptions=True)
            served, failed = ends[:SERVED], ends[SERVED : SERVED + FAILED]
            assert {type(end) for end in served} == {BilledMessage}
            assert {type(end) for end in failed} == {ClaudeError}
            # What was cancelled ends as it can: before its call, during it, or with its answer.
            assert await reserved(ledger) == {}
            await ledger.close()


async def _until_reserved(ledger: Ledger, number: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while len(await reserved(ledger)) < number:
            await asyncio.sleep(0.1)
