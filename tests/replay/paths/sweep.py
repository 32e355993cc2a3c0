"""Every path through the sweep: all of its steps done, and one of them failed."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.client import WorkflowHandle

from tallystick.contracts import SWEEP, TASK_QUEUE
from tallystick.ledger import inbox
from tallystick.stripe_events import Form
from tests.replay.stage import Stage
from tests.support.house import House, open_house

Run = WorkflowHandle[Any, dict[str, int | str]]
Path = Callable[[House], Awaitable[Run]]


async def swept(house: House) -> Run:
    run = await _started(house, "swept")
    assert set((await run.result()).values()) == {0}
    return run


async def swept_but_for_one_step(house: House) -> Run:
    # It is time to ask Stripe for its events.
    async with house.ledger.begin() as tx:
        await inbox.note_read(tx, Form.SNAPSHOT, datetime.now(UTC) - timedelta(days=1))
    await house.stripe.order("server_error", match="GET /v1/events?")
    run = await _started(house, "swept_but_for_one_step")
    found = await run.result()
    assert str(found.pop("backfill_events")).startswith("failed: ")
    assert all(isinstance(each, int) for each in found.values())
    return run


async def _started(house: House, workflow_id: str) -> Run:
    return await house.temporal.start_workflow(
        SWEEP, id=workflow_id, task_queue=TASK_QUEUE, result_type=dict[str, int | str]
    )


PATHS: dict[str, Path] = {path.__name__: path for path in (swept, swept_but_for_one_step)}


async def drive(stage: Stage) -> None:
    """Take each path with the same customer."""
    async with open_house(stage.temporal, await stage.new_database(), "acme") as house:
        for name, path in PATHS.items():
            await stage.keep(name, await path(house))
