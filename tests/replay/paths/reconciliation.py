"""Every path through a reconciliation: clean, repaired, waited for, without a key, and failing."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from temporalio.client import WorkflowHandle

from tallystick.contracts import RECONCILIATION, TASK_QUEUE, ReconcileOrder, ReconcileResult
from tallystick.reconciling.intervals import HOUR
from tests.replay.stage import Stage
from tests.support.house import House, open_house
from tests.support.past import Past, hours_ago

Run = WorkflowHandle[Any, ReconcileResult]
Path = Callable[[House, Past, datetime], Awaitable[Run]]
MINUTE = timedelta(minutes=1)


async def clean(house: House, past: Past, start: datetime) -> Run:
    await past.use(house.customer, start)
    run = await _started(house, "clean", start)
    assert (await run.result()).discrepancies == {}
    return run


async def clean_day(house: House, past: Past, start: datetime) -> Run:
    await past.use(house.customer, start)
    run = await _started(house, "clean_day", start - start.hour * HOUR, hours=24)
    assert (await run.result()).claude_state == "compared"
    return run


async def repaired(house: House, past: Past, start: datetime) -> Run:
    await past.use_and_lose_the_charge(house.stripe, house.customer, start)
    await house.stripe.post("clock", {"advance": 25 * HOUR.total_seconds()})  # and has forgotten it
    await past.lose(house.customer, start + 20 * MINUTE)
    run = await _started(house, "repaired", start)
    assert (await run.result()).over_tolerance == 0
    return run


async def left_to_a_person(house: House, past: Past, start: datetime) -> Run:
    await past.reported(start, 5_000, 100)
    run = await _started(house, "left_to_a_person", start)
    assert (await run.result()).over_tolerance == 1
    return run


async def failing_pair(house: House, past: Past, start: datetime) -> Run:
    await past.use(house.customer, start)
    await house.stripe.order("refused", match="event_summaries", times=None, status=401)
    run = await _started(house, "failing_pair", start)
    assert (await run.result()).failed
    return run


async def refused(house: House, past: Past, start: datetime) -> Run:
    run = await _started(house, "refused", hours_ago(-5))
    with suppress(Exception):
        await run.result()
    return run


async def malformed(house: House, past: Past, start: datetime) -> Run:
    run = await house.temporal.start_workflow(
        RECONCILIATION, {"nonsense": 1}, id="malformed", task_queue=TASK_QUEUE
    )
    with suppress(Exception):
        await run.result()
    return run


async def without_admin_key(house: House, past: Past, start: datetime) -> Run:
    await past.use(house.customer, start)
    run = await _started(house, "without_admin_key", start)
    assert (await run.result()).claude_state == "no_admin_key"
    return run


async def _started(house: House, workflow_id: str, start: datetime, *, hours: int = 1) -> Run:
    return await house.temporal.start_workflow(
        RECONCILIATION,
        ReconcileOrder(start=start, end=start + hours * HOUR),
        id=workflow_id,
        task_queue=TASK_QUEUE,
        result_type=ReconcileResult,
    )


WITH_A_KEY = (clean, clean_day, repaired, left_to_a_person, failing_pair, refused, malformed)
PATHS: dict[str, Path] = {path.__name__: path for path in (*WITH_A_KEY, without_admin_key)}


async def drive(stage: Stage) -> None:
    """Take each path over hours of its own; the one without a key in a house that has none."""
    async with _opened(stage, await stage.new_database()) as house:
        past = Past(house.ledger, house.temporal, house.claude)
        for number, path in enumerate(WITH_A_KEY):
            # Two hours apart, all of them on days that are over.
            start = hours_ago(48 + 2 * number)
            await stage.keep(path.__name__, await path(house, past, start))
            await house.stripe.disarm()
    async with _opened(stage, await stage.new_database(), admin_key=None) as house:
        past = Past(house.ledger, house.temporal, house.claude)
        await stage.keep("without_admin_key", await without_admin_key(house, past, hours_ago(3)))


def _opened(stage: Stage, database: str, **changes: Any) -> Any:
    return open_house(stage.temporal, database, "acme", summaries_settle=0.5, **changes)
