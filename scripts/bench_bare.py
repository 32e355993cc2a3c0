"""The yardstick of `bench.py requests`: our workflow's shape with nothing in its activities.

Two local activities, a remote one on a queue of its own before an update returns, a remote one
after it, started with the same search attributes and with payloads as large as ours. What this
costs is Temporal's price for the shape; what `ClaudeRequest` costs beyond it is ours. Run as a
process of its own, as our worker is.
"""

import asyncio
import signal
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import Priority
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from tallystick.temporal import connect_temporal

QUEUE, CALL_QUEUE = "bench-bare", "bench-bare-call"
_TIMEOUT = timedelta(minutes=1)


@activity.defn
async def before(request: Any) -> Any:
    return {"warnings": []}


@activity.defn
async def call(request: Any) -> Any:
    return {"attempt_id": 1, "message": request["reply"]}


@activity.defn
async def record(order: Any) -> Any:
    return {"bill": order["bill"], "meter_events": 3}


@activity.defn
async def after(order: Any) -> Any:
    return {"delivered": 3}


@workflow.defn(name="BareRequest")
class BareRequest:
    def __init__(self) -> None:
        self._reply: Any = None

    @workflow.run
    async def run(self, request: Any) -> Any:
        await workflow.execute_local_activity(before, request, start_to_close_timeout=_TIMEOUT)
        served = await workflow.execute_activity(
            call,
            request,
            task_queue=CALL_QUEUE,
            start_to_close_timeout=_TIMEOUT,
            priority=Priority(fairness_key=request["customer_id"]),
        )
        recorded = await workflow.execute_local_activity(
            record, {"bill": request["bill"]}, start_to_close_timeout=_TIMEOUT
        )
        self._reply = {"message": served["message"], "bill": recorded["bill"]}
        await workflow.execute_activity(
            after, {"request_id": request["request_id"]}, start_to_close_timeout=_TIMEOUT
        )
        return self._reply

    @workflow.update
    async def reply(self) -> Any:
        await workflow.wait_condition(lambda: self._reply is not None)
        return self._reply


async def main() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    client: Client = await connect_temporal()
    runner = SandboxedWorkflowRunner(
        restrictions=SandboxRestrictions.default.with_passthrough_modules("tallystick")
    )
    async with (
        Worker(
            client,
            task_queue=QUEUE,
            workflows=[BareRequest],
            activities=[before, record, after],
            workflow_runner=runner,
            max_concurrent_activities=1_000,
        ),
        Worker(client, task_queue=CALL_QUEUE, activities=[call], max_concurrent_activities=64),
    ):
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
