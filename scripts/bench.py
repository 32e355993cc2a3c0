"""Benchmarks: `scripts/bench.py requests|batch|rating|webhooks|cycles|reconcile|scale [--json]`.

Figures are ratios taken in one run on one machine, so they can be compared between machines.
Nothing here fails on time; what a figure should be is printed beside it. A reconciliation that
finds differences where there are none fails.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import bench_bare
import bench_batch
import bench_cycles
import bench_rating
import bench_reconcile
import bench_scale
import bench_webhooks
from anthropic import AsyncAnthropic
from bench_load import MODEL, add_customers, body, customer
from temporalio.client import Client as TemporalClient
from temporalio.client import WithStartWorkflowOperation, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy

from tallystick.client import Client
from tallystick.contracts import request_workflow_id
from tallystick.embedded import stop_process
from tallystick.exiting import end_process
from tallystick.local import LocalStack, local_stack
from tallystick.settings import SANDBOX_CLAUDE_KEY, Settings
from tallystick.temporal import connect_temporal, request_attributes

Ask = Callable[[str], Awaitable[None]]


@dataclass(frozen=True)
class Figure:
    """One result: what was measured, how much it is, and what it should be."""

    name: str
    value: float
    aim: str


class Contest:
    """Our requests and bare ones, on the same servers."""

    def __init__(self, local: LocalStack, temporal: TemporalClient, sample: dict[str, Any]):
        self.local, self.temporal = local, temporal
        self._client = Client(temporal)
        self._sample = sample  # a reply and a bill of ours, for the bare workflow to carry

    async def ours(self, name: str) -> None:
        await self._client.messages.create(
            customer_id=customer(name), request_id=name, **body(name)
        )

    async def bare(self, name: str) -> None:
        request = {
            "customer_id": customer(name),
            "request_id": name,
            "params": body(name),
            **self._sample,
        }
        start: WithStartWorkflowOperation[Any, Any] = WithStartWorkflowOperation(
            "BareRequest",
            request,
            id=f"bare/{name}",
            task_queue=bench_bare.QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            search_attributes=request_attributes(customer(name), MODEL),
            static_summary=f"{MODEL} for {customer(name)}",
        )
        await self.temporal.execute_update_with_start_workflow(
            "reply", start_workflow_operation=start, id="reply"
        )

    def workflow_id(self, name: str, kind: str) -> str:
        if kind == "bare":
            return f"bare/{name}"
        return request_workflow_id(customer(name), name)

    async def rate(self, kind: str, count: int, concurrency: int) -> tuple[float, list[str]]:
        """Return requests a second until every workflow has ended, and their names."""
        ask: Ask = getattr(self, kind)
        names = [f"{kind}-{uuid.uuid4().hex[:10]}" for _ in range(count)]
        waiting = iter(names)
        began = time.perf_counter()

        async def lane() -> None:
            for name in waiting:
                await ask(name)

        await asyncio.gather(*(lane() for _ in range(concurrency)))
        for name in names:
            handle = self.temporal.get_workflow_handle(self.workflow_id(name, kind))
            description = await handle.describe()
            if description.status is WorkflowExecutionStatus.RUNNING:
                await handle.result()
        return count / (time.perf_counter() - began), names

    async def latency(self, kind: str, count: int) -> list[float]:
        """Return the seconds until `reply`, one request at a time."""
        ask: Ask = getattr(self, kind)
        taken: list[float] = []
        for _ in range(count):
            began = time.perf_counter()
            await ask(f"{kind}-{uuid.uuid4().hex[:10]}")
            taken.append(time.perf_counter() - began)
        return taken


async def bench_requests(count: int, concurrency: int) -> list[Figure]:
    """Measure `ClaudeRequest` against a bare workflow of the same shape."""
    with tempfile.TemporaryDirectory(prefix="tallystick-") as home:
        settings = Settings(home=Path(home), database_url=None)
        async with local_stack(settings) as local:
            await add_customers(local, settings)
            await local.start_worker()
            bare = await asyncio.create_subprocess_exec(
                sys.executable, str(Path(__file__).parent / "bench_bare.py"), env=local.environment
            )
            try:
                temporal = await connect_temporal(local.temporal.address)
                return await _measure(local, temporal, count, concurrency)
            finally:
                await stop_process(bare)


async def _measure(
    local: LocalStack, temporal: TemporalClient, count: int, concurrency: int
) -> list[Figure]:
    contest = Contest(local, temporal, await _sample_reply(temporal))
    _say("warming up")
    for kind in ("bare", "ours"):
        await contest.rate(kind, 30, 10)
    _say("latency, one at a time")
    taken: dict[str, list[float]] = {"bare": [], "ours": [], "stand-in": []}
    for _ in range(5):  # in turns, so that a slow moment of the machine hits all alike
        taken["bare"] += await contest.latency("bare", 12)
        taken["ours"] += await contest.latency("ours", 12)
        taken["stand-in"] += await _stand_in_latency(local, 12)
    p50 = {kind: statistics.median(values) for kind, values in taken.items()}
    _say(f"throughput, {count:,} of each at concurrency {concurrency}")
    speeds: dict[str, list[float]] = {"bare": [], "ours": []}
    names: list[str] = []
    stripe_calls = 0
    for _ in range(2):
        for kind in ("bare", "ours"):
            before = await bench_batch.stripe_calls(local)
            speed, made = await contest.rate(kind, count // 2, concurrency)
            speeds[kind].append(speed)
            if kind == "ours":
                names += made
                stripe_calls += await bench_batch.stripe_calls(local) - before
    bare, ours = (statistics.harmonic_mean(speeds[kind]) for kind in ("bare", "ours"))
    events, size = await _history(contest, names[:50])
    return [
        Figure("throughput, ours / bare", round(ours / bare, 3), "0.85 or more"),
        Figure(
            "p50 of reply beyond the stand-in's own, ours / bare",
            round((p50["ours"] - p50["stand-in"]) / p50["bare"], 3),
            "1.2 or less",
        ),
        Figure("history events a request", events, "21 or fewer"),
        Figure("history bytes a request", size, "-"),
        Figure(
            "Stripe HTTP calls per 1,000 requests",
            round(stripe_calls * 1_000 / len(names), 1),
            "60 or fewer",
        ),
        Figure("bare requests a second (this machine)", round(bare, 1), "-"),
        Figure("our requests a second (this machine)", round(ours, 1), "-"),
        Figure("p50 of our reply, ms (this machine)", round(p50["ours"] * 1_000, 1), "-"),
    ]


async def _sample_reply(temporal: TemporalClient) -> dict[str, Any]:
    name = "sample"
    reply = await Client(temporal).messages.create(
        customer_id="bench-0", request_id=name, **body(name)
    )
    message = json.loads(reply.to_json())
    message.pop("bill", None)
    return {"reply": message, "bill": reply.bill.model_dump(mode="json")}


async def _stand_in_latency(local: LocalStack, count: int) -> list[float]:
    taken: list[float] = []
    async with AsyncAnthropic(
        api_key=SANDBOX_CLAUDE_KEY, base_url=local.claude_url, max_retries=0
    ) as claude:
        await claude.messages.create(**body("warm"))
        for _ in range(count):
            began = time.perf_counter()
            await claude.messages.create(**body(uuid.uuid4().hex[:10]))
            taken.append(time.perf_counter() - began)
    return taken


async def _history(contest: Contest, names: list[str]) -> tuple[float, float]:
    events: list[int] = []
    sizes: list[int] = []
    for name in names:
        handle = contest.temporal.get_workflow_handle(contest.workflow_id(name, "ours"))
        info = (await handle.describe()).raw_description.workflow_execution_info
        events.append(info.history_length)
        sizes.append(info.history_size_bytes)
    return statistics.mean(events), round(statistics.mean(sizes))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Run one benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    benchmarks = ["requests", "batch", "rating", "webhooks", "cycles", "reconcile", "scale"]
    parser.add_argument("benchmark", choices=benchmarks)
    parser.add_argument("--requests", type=int, default=1_000)
    parser.add_argument("--items", type=int, default=100_000, help="of the batch job")
    parser.add_argument("--deliveries", type=int, default=10_000)
    parser.add_argument("--count", type=int, default=10_000, help="of cycles")
    parser.add_argument("--records", type=int, default=1_000_000, help="of the reconciled day")
    parser.add_argument("--concurrency", type=int, help="100 requests, 4 deliveries or 50 cycles")
    parser.add_argument("--short", action="store_true", help="scale: only that it works")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.benchmark == "rating":
        bench_rating.main()
        end_process(0)
    # The stand-ins are what is measured against; keys in the environment are none of our business.
    for name in ("ANTHROPIC_API_KEY", "STRIPE_API_KEY", "TALLYSTICK_SANDBOX"):
        os.environ.pop(name, None)
    if arguments.benchmark == "webhooks":
        taken = asyncio.run(bench_webhooks.bench(arguments.deliveries, arguments.concurrency or 4))
        figures = [Figure(*each) for each in taken]
    elif arguments.benchmark == "cycles":
        taken = asyncio.run(
            bench_cycles.bench(arguments.count, arguments.concurrency or bench_cycles.LANES)
        )
        figures = [Figure(*each) for each in taken]
    elif arguments.benchmark == "batch":
        figures = [Figure(*each) for each in asyncio.run(bench_batch.bench(arguments.items))]
    elif arguments.benchmark == "scale":
        extent = bench_scale.SHORT if arguments.short else bench_scale.Extent()
        figures = [Figure(*each) for each in asyncio.run(bench_scale.bench(extent))]
    elif arguments.benchmark == "reconcile":
        figures = [Figure(*each) for each in asyncio.run(bench_reconcile.bench(arguments.records))]
    else:
        figures = asyncio.run(bench_requests(arguments.requests, arguments.concurrency or 100))
    if arguments.json:
        print(json.dumps([asdict(figure) for figure in figures]))
    else:
        width = max(len(figure.name) for figure in figures)
        for figure in figures:
            print(f"{figure.name:<{width}}  {figure.value:>10,}  aim: {figure.aim}")
    wrong = any(each.name in bench_reconcile.MUST_BE_NONE and each.value for each in figures)
    end_process(1 if wrong else 0)


if __name__ == "__main__":
    main()
