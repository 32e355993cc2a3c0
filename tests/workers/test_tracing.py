"""Traces, as a collector gets them from a caller's process and a worker's, over real HTTP."""

import sys
from asyncio import create_subprocess_exec, gather
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.proto.trace.v1.trace_pb2 import Status as SpanStatus
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from temporalio.client import Client as TemporalClient
from temporalio.worker import Replayer

from activities.waking import wake
from scripts.chaos_parts.load import marked
from tallystick.contracts import News, cycle_workflow_id, request_workflow_id
from tallystick.embedded import stop_process
from tallystick.sandbox.server import serve
from tallystick.tracing import Tracing
from tests.cli.shell import Shell
from tests.crash.drill import PATIENCE, Drill
from tests.workers.conftest import KEY
from workers.plugin import TallystickPlugin

PROMPT = "planted-in-a-prompt"
HEADER = "_tracer-data"


class Collector:
    """What was sent, and what is told of each span."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def take(self, request: Request) -> Response:
        assert request.headers["content-type"] == "application/x-protobuf"
        self.bodies.append(await request.body())
        return Response(media_type="application/x-protobuf")

    def spans(self, **ids: str) -> list[Span]:
        """Return the spans that have these ids of ours."""
        wanted = {f"tallystick.{name}": value for name, value in ids.items()}
        return [
            span
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
            if wanted.items() <= told_by(span).items()
        ]


def told_by(span: Span) -> dict[str, Any]:
    return {
        each.key: getattr(each.value, str(each.value.WhichOneof("value")))
        for each in span.attributes
    }


@pytest_asyncio.fixture(scope="module")
async def collector() -> AsyncIterator[tuple[Collector, str]]:
    collector = Collector()
    routes = [Route("/v1/traces", collector.take, methods=["POST"])]
    async with serve(Starlette(routes=routes)) as url:
        yield collector, url


async def test_a_request_is_one_trace_with_its_ids_and_without_content(
    stack: Drill, collector: tuple[Collector, str]
) -> None:
    seen, url = collector
    tracing = {"TALLYSTICK_TRACING": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": url}
    await stack.claude.order("error_529", match=marked("traced"))
    await stack.claude.order("error_401", match=marked("refused"))
    worker = await stack.start_worker(ANTHROPIC_API_KEY=KEY, **tracing)
    caller = Shell(stack.stack.home, **{**stack.stack.environment, **tracing})
    prompts = {name: f"{marked(name)} {PROMPT}" for name in ("traced", "refused")}
    asked, refused = await gather(
        caller("request", "acme", prompts["traced"], "--id", "traced", "--json"),
        caller.attempt("request", "acme", prompts["refused"], "--id", "refused"),
    )
    assert "401" in refused.error
    traced = stack.temporal.get_workflow_handle(request_workflow_id("acme", "traced"))
    await traced.result()
    await stop_process(worker, patience=PATIENCE)
    stack.stack.workers.remove(worker)

    spans = seen.spans(customer_id="acme", request_id="traced")
    assert len({span.trace_id for span in spans}) == 1
    (root,) = [span for span in spans if not span.parent_span_id]
    assert root.name == "StartUpdateWithStartWorkflow:ClaudeRequest"
    assert {span.parent_span_id for span in spans} <= {b"", *(span.span_id for span in spans)}
    names = Counter(span.name for span in spans)
    assert names["RunWorkflow:ClaudeRequest"] == names["CompleteWorkflow:ClaudeRequest"] == 1
    assert {name: number for name, number in names.items() if "RunActivity" in name} == {
        "RunActivity:admit_request": 1,
        "RunActivity:call_claude": 2,
        "RunActivity:record_usage": 1,
        "RunActivity:send_meter_events": 1,
    }
    overloaded, served = sorted(
        (told_by(span) for span in spans if span.name == "RunActivity:call_claude"),
        key=lambda told: told["tallystick.attempt"],
    )
    assert overloaded["error.type"] == "ClaudeOverloaded"
    assert (served["tallystick.attempt"], "error.type" in served) == (2, False)
    message = asked.json["message"]
    assert served["tallystick.message_id"] == message["id"]
    (row,) = [a for a in await stack.attempts("traced") if a["outcome"] == "succeeded"]
    assert served["tallystick.attempt_id"] == row["attempt_id"]

    failed = [
        told_by(span)["error.type"]
        for span in seen.spans(request_id="refused")
        if span.status.code == SpanStatus.STATUS_CODE_ERROR and "RunActivity" in span.name
    ]
    assert failed == ["ClaudeForbidden"]
    assert not any(span.events or span.status.message for span in seen.spans())
    text = message["content"][0]["text"]
    for secret in (PROMPT, KEY, text):
        assert secret.encode() not in b"".join(seen.bodies)

    # Whoever takes over need not trace, and whoever traces tells nothing twice.
    history = await traced.fetch_history()
    assert HEADER in history.events[0].workflow_execution_started_event_attributes.header.fields
    await Replayer(workflows=[], plugins=[TallystickPlugin()]).replay_workflow(history)
    tracing_here, told = _tracing()
    replayer = Replayer(workflows=[], plugins=[TallystickPlugin()], interceptors=[tracing_here])
    await replayer.replay_workflow(history)
    assert told.get_finished_spans() == ()


async def test_an_account_is_not_part_of_the_trace_that_woke_it(stack: Drill) -> None:
    tracing, told = _tracing()
    config = stack.temporal.config()
    config["interceptors"] = [tracing]
    await wake(TemporalClient(**config), "bolt", News())
    cycle = stack.temporal.get_workflow_handle(cycle_workflow_id("bolt"))
    history = await cycle.fetch_history()
    assert not history.events[0].workflow_execution_started_event_attributes.header.fields
    (span,) = told.get_finished_spans()
    assert span.name == "SignalWithStartWorkflow:BillingCycle"


async def test_without_the_setting_nothing_of_it_is_loaded(stack: Drill) -> None:
    program = (
        "import asyncio, sys, tallystick, tallystick.web.main, workers.main\n"
        "asyncio.run(tallystick.Client.connect())\n"
        "print([m for m in sys.modules if m.startswith(('opentelemetry.sdk', "
        "'opentelemetry.exporter', 'temporalio.contrib.opentelemetry'))])"
    )
    process = await create_subprocess_exec(
        sys.executable, "-c", program, stdout=PIPE, env=dict(stack.stack.environment)
    )
    out, _ = await process.communicate()
    assert out == b"[]\n"


def _tracing() -> tuple[Tracing, InMemorySpanExporter]:
    """Return an interceptor and what its spans are told to."""
    told = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(told))
    return Tracing(provider.get_tracer("tests")), told
