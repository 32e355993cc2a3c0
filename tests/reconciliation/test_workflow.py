"""The whole run: the production worker on a real Temporal server, PostgreSQL and both stand-ins.

One house for all tests; each compares hours that no other one uses.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql
from temporalio.client import (
    ScheduleActionExecutionStartWorkflow,
    WorkflowFailureError,
    WorkflowHandle,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError

from tallystick.contracts import (
    PROGRESS_QUERY,
    RECONCILIATION,
    TASK_QUEUE,
    ReconcileOrder,
    ReconcileProgress,
    ReconcileResult,
    reconciliation_workflow_id,
)
from tallystick.embedded import TemporalServer
from tallystick.ledger import discrepancies, notices, reconciliations
from tallystick.ledger.reconciliation_tables import Discrepancy, Reconciliation
from tallystick.reconciling.intervals import HOUR
from tallystick.temporal import BILLING_STATE, connect_temporal
from tests.support.house import PATIENCE, House, open_house
from tests.support.past import Past, hours_ago
from tests.support.schedules import paused_schedules

MINUTE = timedelta(minutes=1)
FORGOTTEN = timedelta(hours=25)
"""After which Stripe knows no identifier any more, and an event can be sent again."""
MOST_EVENTS = 60
MOST_EVENTS_WITH_REPAIRS = 75
"""When Stripe is still counting, and both it and Claude's report are looked at twice."""
SETTLES = 0.5
"""Seconds; a report that is late is asked for again after them."""
Run = WorkflowHandle[Any, ReconcileResult]


@dataclass
class Bureau:
    """A house where records are compared."""

    house: House
    past: Past
    _hours: Any = field(default_factory=lambda: itertools.count(14, 2))

    def an_hour(self) -> datetime:
        """Return the beginning of an hour that nothing else has happened in, or beside."""
        return hours_ago(next(self._hours))

    async def start(self, start: datetime, end: datetime | None = None) -> Run:
        end = end or start + HOUR
        return await self.house.temporal.start_workflow(
            RECONCILIATION,
            ReconcileOrder(start=start, end=end),
            id=reconciliation_workflow_id(start, end),
            task_queue=TASK_QUEUE,
            result_type=ReconcileResult,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        )

    async def compare(self, start: datetime, end: datetime | None = None) -> ReconcileResult:
        return await (await self.start(start, end)).result()

    async def found(self, result: ReconcileResult) -> list[Discrepancy]:
        async with self.house.ledger.begin() as tx:
            return [
                each async for each in discrepancies.find(tx, start=result.start, end=result.end)
            ]

    async def entered(self, result: ReconcileResult) -> Reconciliation:
        async with self.house.ledger.begin() as tx:
            return await reconciliations.get(tx, result.reconciliation_id)

    async def told(self, kind: str) -> list[dict[str, Any]]:
        async with self.house.ledger.begin() as tx:
            return [each.facts for each in await notices.waiting(tx, None) if each.kind == kind]


@pytest_asyncio.fixture(scope="module")
async def whole_bureau(postgres: str, temporal_server: TemporalServer) -> AsyncIterator[Bureau]:
    plain = postgres.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(plain, autocommit=True) as connection:
        made = sql.SQL("CREATE DATABASE {} TEMPLATE template_tallystick")
        connection.execute(made.format(sql.Identifier("reconciled")))
    temporal = await connect_temporal(temporal_server.address)
    url = postgres.replace("/postgres?", "/reconciled?")
    async with open_house(temporal, url, "acme", summaries_settle=SETTLES) as house:
        yield Bureau(house, Past(house.ledger, temporal, house.claude))


@pytest_asyncio.fixture
async def bureau(whole_bureau: Bureau) -> AsyncIterator[Bureau]:
    """The house with both stand-ins honest and in order."""
    yield whole_bureau
    await whole_bureau.house.stripe.disarm()
    await whole_bureau.house.claude.disarm()
    await whole_bureau.house.claude.post("reports", {"lag": 0})


async def test_records_that_tally_leave_nothing_behind_but_the_run(bureau: Bureau) -> None:
    start = bureau.an_hour()
    for minute in (0, 17, 59):
        await bureau.past.use("acme", start + minute * MINUTE)
    run = await bureau.start(start)
    result = await run.result()
    assert result.claude_state == "compared"
    assert (result.discrepancies, result.over_tolerance, result.failed) == ({}, 0, {})
    assert await _billing_state(run) is None
    assert await _events(run) < MOST_EVENTS
    entered = await bureau.entered(result)
    assert entered.finished_at is not None
    assert (entered.start_at, entered.end_at) == (start, start + HOUR)
    progress = await run.query(PROGRESS_QUERY, result_type=ReconcileProgress)
    assert len(progress.done) == 6
    assert (progress.failed, progress.running) == ((), ())


async def test_a_lost_event_and_a_lost_call_are_mended_and_both_sides_agree(
    bureau: Bureau,
) -> None:
    start = bureau.an_hour()
    stripe = bureau.house.stripe
    await bureau.past.use_and_lose_the_charge(stripe, "acme", start + 3 * MINUTE)
    await stripe.post("clock", {"advance": FORGOTTEN.total_seconds()})
    lost = await bureau.past.lose("acme", start + 30 * MINUTE)
    run = await bureau.start(start)
    result = await run.result()
    found = {each.cause: each for each in await bureau.found(result)}
    assert {cause: each.state for cause, each in found.items()} == {
        "lost_event": "settled",
        "lost_call": "settled",
    }
    assert found["lost_call"].requests[0]["request_id"] == lost.request_id
    assert result.over_tolerance == 0
    assert await _events(run) < MOST_EVENTS_WITH_REPAIRS
    told = [each for each in await bureau.told("discrepancy") if _within(each, start)]
    assert {each["cause"] for each in told} == {"lost_event", "lost_call"}

    again = await bureau.compare(start)
    assert again.discrepancies == result.discrepancies
    assert await bureau.found(again) == list(found.values())


async def test_a_run_that_leaves_something_over_tolerance_is_found_by_its_state(
    bureau: Bureau,
) -> None:
    start = bureau.an_hour()
    await bureau.past.reported(start + 5 * MINUTE, 5_000, 100)
    run = await bureau.start(start)
    result = await run.result()
    assert (result.over_tolerance, result.tokens) == (1, 5_100)
    assert await _billing_state(run) == "discrepancy"
    (told,) = [each for each in await bureau.told("discrepancy") if _within(each, start)]
    assert (told["pair"], told["cause"]) == ("claude-ledger", "outside_usage")


async def test_a_pair_that_cannot_be_compared_stops_no_other(bureau: Bureau) -> None:
    start = bureau.an_hour()
    await bureau.past.reported(start + 5 * MINUTE, 5_000, 100)
    await bureau.past.use("acme", start + 6 * MINUTE)
    await bureau.house.stripe.order("refused", match="event_summaries", times=None, status=401)
    run = await bureau.start(start)
    result = await run.result()
    assert {*result.failed} >= {"compare meter events with what Stripe counts"}
    assert result.claude_state == "compared"
    assert [each.pair for each in await bureau.found(result)] == ["claude-ledger"]
    (told, *_) = await bureau.told("reconciliation_failed")
    assert told["step"] == "compare meter events with what Stripe counts"


async def test_late_reports_are_waited_for_without_a_longer_history(bureau: Bureau) -> None:
    start = bureau.an_hour()
    await bureau.past.use("acme", start)
    await bureau.house.claude.post("reports", {"lag": timedelta(days=3).total_seconds()})
    run = await bureau.start(start)
    async with asyncio.timeout(PATIENCE):
        while not (reading := await _tries(run, "read_reports")) or reading < 3:
            await asyncio.sleep(0.1)
    await bureau.house.claude.post("reports", {"lag": 0})
    result = await run.result()
    assert (result.claude_state, result.discrepancies) == ("compared", {})
    assert await _events(run) < MOST_EVENTS


async def test_a_run_of_the_schedule_compares_the_hours_before_its_own_instant(
    bureau: Bureau,
) -> None:
    temporal = bureau.house.temporal
    async with paused_schedules(temporal) as schedules:
        hourly, daily = (
            schedules[name] for name in ("reconciliation-hourly", "reconciliation-daily")
        )
        await hourly.trigger()
        await daily.trigger()
        hours, day = [await _ran(bureau, each) for each in (hourly, daily)]
    now = datetime.now(UTC)
    assert hours.end - hours.start == 12 * HOUR
    assert now - HOUR - MINUTE < hours.end <= now
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    assert (day.start, day.end) in [
        (end - 24 * HOUR, end) for end in (midnight, midnight - 24 * HOUR)
    ]
    kinds = [(await bureau.entered(each)).kind for each in (hours, day)]
    assert kinds == ["hourly", "daily"]


async def test_hours_that_are_not_over_are_refused_in_words(bureau: Bureau) -> None:
    orders: list[tuple[Any, str]] = [
        (ReconcileOrder(start=hours_ago(0), end=hours_ago(-1)), "are not over yet"),
        ({"start": "2026-03-01T00:00:00"}, "start: Input should have timezone info"),
        ({"nonsense": 1}, "nonsense: Extra inputs are not permitted"),
    ]
    for number, (order, words) in enumerate(orders):
        run = await bureau.house.temporal.start_workflow(
            RECONCILIATION, order, id=f"refused-{number}", task_queue=TASK_QUEUE
        )
        with pytest.raises(WorkflowFailureError) as refused:
            await run.result()
        assert words in cast("ApplicationError", refused.value.cause).message


async def test_who_asks_for_the_same_hours_shares_one_run(bureau: Bureau) -> None:
    start = bureau.an_hour()
    first, second = await asyncio.gather(bureau.start(start), bureau.start(start))
    assert first.first_execution_run_id == second.first_execution_run_id
    await first.result()


# --- Looking --------------------------------------------------------------------------------------
async def _billing_state(run: Run) -> str | None:
    return (await run.describe()).typed_search_attributes.get(BILLING_STATE)


async def _events(run: Run) -> int:
    return len((await run.fetch_history()).events)


async def _tries(run: Run, step: str) -> int | None:
    """Return how often a step that is under way was tried."""
    described = await run.describe()
    for pending in described.raw_description.pending_activities:
        if pending.activity_type.name == step:
            return pending.attempt
    return None


async def _ran(bureau: Bureau, schedule: Any) -> ReconcileResult:
    """Wait for the run that was triggered; returns what it came to."""
    async with asyncio.timeout(PATIENCE):
        while not (actions := (await schedule.describe()).info.recent_actions):
            await asyncio.sleep(0.05)
        started = cast("ScheduleActionExecutionStartWorkflow", actions[-1].action)
        run = bureau.house.temporal.get_workflow_handle(
            started.workflow_id, result_type=ReconcileResult
        )
        return await run.result()


def _within(told: dict[str, Any], start: datetime) -> bool:
    return start <= datetime.fromisoformat(told["start"]) < start + HOUR
