"""The parts of `bench.py reconcile`: a day of usage, and the least that comparing it could cost.

The day lies in the ledger and at both stand-ins, and all three agree, so that a reconciliation has
to look at everything and find nothing. It is the production one: a worker process of its own, the
workflow started as `tallystick reconcile` starts it. What it takes is held against the bare sums
over the same rows (`BARE`), which any comparison has to make of them, asked on one connection with
all rows read before. Calls are counted by the stand-ins themselves.
"""

import asyncio
import sys
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psycopg
from bench_batch import Memory
from bench_usage import METERS_OF_A_RECORD, Usage, seed
from temporalio.client import WorkflowHistory

from activities.stripe_clients import stripe_client
from tallystick.contracts import RECONCILIATION, TASK_QUEUE, ReconcileOrder, ReconcileResult
from tallystick.embedded import stop_process
from tallystick.local import LocalStack, local_stack
from tallystick.settings import Settings
from tallystick.temporal import connect_temporal

CUSTOMERS = 2_000
RECORDS_OF_A_CUSTOMER = 10
"""At the least, so that a small day has fewer customers."""
DAY = timedelta(days=1)
WORKER = {"TALLYSTICK_SUMMARIES_SETTLE": "0"}
PATIENCE = 3_600
"""Seconds for the whole run; far more than it takes."""
_MB = 1_000_000

BARE = (
    """
    SELECT date_trunc('hour', served_at, 'UTC') AS hour, model, count(*), sum(input_tokens),
        sum(output_tokens), sum(cache_write_5m_tokens), sum(cache_write_1h_tokens),
        sum(cache_read_tokens), sum(web_searches)
    FROM usage_records WHERE served_at >= %(start)s AND served_at < %(end)s GROUP BY hour, model
    """,
    """
    SELECT stripe_customer_id, meter, sum(value)
    FROM meter_events WHERE occurred_at >= %(start)s AND occurred_at < %(end)s
    GROUP BY stripe_customer_id, meter
    """,
)
"""The yardstick: sums by hour, model and kind, and sums by customer and meter."""

Figures = list[tuple[str, float, str]]
DIFFERENCES, FAILED = "discrepancies found", "steps that failed"
MUST_BE_NONE = (DIFFERENCES, FAILED)
"""Figures that are wrong if they are not 0: nothing differs."""


STRIPE = "compare_stripe"
"""The step that waits for Stripe's answers, which is nearly all that it does."""


@dataclass(frozen=True)
class Ran:
    """How a run went: its result, its seconds in all and in each step, and its worker's peak in
    bytes. Some steps go side by side."""

    result: ReconcileResult
    seconds: float
    steps: list[tuple[str, float]]
    peak: int

    def besides(self, step: str) -> float:
        """Return the seconds of all other steps."""
        return sum(seconds for name, seconds in self.steps if name != step)


async def bench(records: int) -> Figures:
    """Return figures: what was measured, how much it is, and what it should be."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    customers = max(1, min(CUSTOMERS, records // RECORDS_OF_A_CUSTOMER))
    day = Usage(records, customers, today - DAY, today)
    with tempfile.TemporaryDirectory(prefix="tallystick-") as home:
        settings = Settings(home=Path(home), database_url=None)
        async with local_stack(settings) as local:
            assert local.claude_url
            assert local.stripe_url
            _say(f"{records:,} records of {customers:,} customers: writing them")
            async with stripe_client(local.endpoints(settings), settings) as stripe:
                await seed(local.database_url, stripe, local.claude_url, local.stripe_url, day)
            _say("the yardstick")
            bare = await asyncio.to_thread(bare_sums, local.database_url, day)
            _say("reconciling")
            before = await _calls(local)
            ran = await _reconcile(local, day)
            calls = await _calls(local) - before
    summaries = sum(count for call, count in calls.items() if "event_summaries" in call)
    pairs = customers * METERS_OF_A_RECORD
    return [
        ("records", records, "-"),
        (DIFFERENCES, sum(ran.result.discrepancies.values()), "0"),
        (FAILED, len(ran.result.failed), "0"),
        ("time, reconciling / bare sums", round(ran.seconds / bare, 1), "-"),
        ("the same without compare_stripe", round(ran.besides(STRIPE) / bare, 1), "-"),
        ("worker's peak, MB", round(ran.peak / _MB), "below 300"),
        ("calls for Stripe's sums", summaries, f"{pairs:,} or fewer"),
        ("the same for each customer and meter", round(summaries / pairs, 3), "1 or less"),
        ("other calls to Stripe", _count(calls, "stripe") - summaries, "-"),
        ("calls to Anthropic", _count(calls, "claude"), "-"),
        ("seconds of reconciling (this machine)", round(ran.seconds, 1), "-"),
        *((f"seconds of {name} (this machine)", round(taken, 1), "-") for name, taken in ran.steps),
        ("seconds of the bare sums (this machine)", round(bare, 2), "-"),
    ]


def bare_sums(database_url: str, day: Usage) -> float:
    """Return the seconds that the yardstick takes, once its rows are in memory."""
    url = database_url.replace("postgresql+psycopg://", "postgresql://")
    span = {"start": day.start, "end": day.end}
    with psycopg.connect(url) as connection:
        for _ in range(2):
            began = time.perf_counter()
            for sums in BARE:
                connection.execute(sums, span).fetchall()
            taken = time.perf_counter() - began
    return taken


async def _reconcile(local: LocalStack, day: Usage) -> Ran:
    """Reconcile the day by the workflow, on a worker of its own."""
    worker = await local.start_worker(**WORKER)
    temporal = await connect_temporal(local.temporal.address)
    memory = Memory(worker.pid)
    watching = asyncio.create_task(memory.watch())
    order = ReconcileOrder(kind="manual", start=day.start, end=day.end)
    try:
        async with asyncio.timeout(PATIENCE):
            began = time.perf_counter()
            handle = await temporal.start_workflow(
                RECONCILIATION,
                order,
                id=f"bench-reconcile-{uuid.uuid4().hex[:8]}",
                task_queue=TASK_QUEUE,
                result_type=ReconcileResult,
            )
            result = await handle.result()
            seconds = time.perf_counter() - began
            steps = _steps(await handle.fetch_history())
    finally:
        watching.cancel()
    local.workers.remove(worker)
    await stop_process(worker, patience=90)
    return Ran(result, seconds, steps, memory.peak)


def _steps(history: WorkflowHistory) -> list[tuple[str, float]]:
    """Return the seconds of each step, by what the server noted of its activity."""
    events = {event.event_id: event for event in history.events}
    taken: list[tuple[str, float]] = []
    for event in history.events:
        if event.HasField("activity_task_completed_event_attributes"):
            done = event.activity_task_completed_event_attributes
            began = events[done.started_event_id].event_time.ToNanoseconds()
            ordered = events[done.scheduled_event_id].activity_task_scheduled_event_attributes
            taken.append(
                (ordered.activity_type.name, (event.event_time.ToNanoseconds() - began) / 10**9)
            )
    return taken


async def _calls(local: LocalStack) -> Counter[str]:
    """Return how often each of the stand-ins' calls was made, by service, method and path."""
    counted = Counter[str]()
    async with httpx.AsyncClient(timeout=60) as http:
        for service, url in (("claude", local.claude_url), ("stripe", local.stripe_url)):
            totals = (await http.get(f"{url}/_sandbox/totals", timeout=PATIENCE)).json()
            for call, count in totals["calls"].items():
                counted[f"{service} {call}"] = count
    return counted


def _count(calls: Counter[str], service: str) -> int:
    return sum(count for call, count in calls.items() if call.startswith(f"{service} "))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
