"""Traces of requests, as OpenTelemetry spans: from the caller through the workflow to each step.

Temporal's own interceptor makes the spans, in client and worker alike. The trace goes along in a
header of the workflow and of each step, which no replay compares; inside a workflow a span is an
instant, made outside the sandbox and only the first time. A step's span lasts as long as one
attempt of it, so `RunActivity:call_claude` is one call to Claude, and a retry is another span.

One gate decides what leaves: names, instants, ids and the type of an error, but never its words or
where it was raised, which may quote a prompt. Baggage is not passed on, since headers are not
encrypted. An account's cycle lives for years and gets no header, or the trace of whoever woke it
first would never end; a step that nobody's request has led to is a trace of its own.

The provider is ours alone. An application that traces itself keeps what it has set up, and its
current span is the parent of ours. Spans wait in memory and are sent in the background; what nobody
takes is dropped.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import Status, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from temporalio import activity
from temporalio.client import OutboundInterceptor, StartWorkflowInput, WorkflowHandle
from temporalio.contrib.opentelemetry import TracingInterceptor
from temporalio.exceptions import ApplicationError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

from tallystick.contracts import BILLING_CYCLE, ServedReply, named_by

_WORKFLOW_ID = "temporalWorkflowID"
"""As Temporal's interceptor calls it."""


class Tracing(TracingInterceptor):
    """Temporal's interceptor, with our ids on the spans of steps."""

    def __init__(self, tracer: Tracer):
        super().__init__(tracer)
        self.text_map_propagator = TraceContextTextMapPropagator()

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:
        """Put the spans around what a client asks for."""
        return super().intercept_client(_Cycleless(next))

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Put a span around each attempt of a step."""
        return super().intercept_activity(_Named(next))


class _Cycleless(OutboundInterceptor):
    async def start_workflow(self, input: StartWorkflowInput) -> WorkflowHandle[Any, Any]:
        if input.workflow == BILLING_CYCLE:
            input.headers = {}
        return await super().start_workflow(input)


class _Named(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        span = trace.get_current_span()
        span.set_attribute("tallystick.attempt", activity.info().attempt)
        try:
            result = await super().execute_activity(input)
        except Exception as error:
            row = error.type if isinstance(error, ApplicationError) else None
            span.set_attribute("error.type", row or type(error).__name__)
            raise
        if isinstance(result, ServedReply):
            span.set_attribute("tallystick.attempt_id", result.attempt_id)
            span.set_attribute("tallystick.message_id", result.message.get("id", ""))
        return result


class _Gate(OTLPSpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return super().export([_told(span) for span in spans])


def _told(span: ReadableSpan) -> ReadableSpan:
    """Return what may be told of a span, with the ids that its workflow is named by."""
    attributes = span.attributes or {}
    named = named_by(str(attributes.get(_WORKFLOW_ID, "")))
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes={**attributes, **{f"tallystick.{name}": id for name, id in named.items()}},
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


@cache
def interceptor() -> Tracing:
    """Return this process's interceptor; what it holds is sent when the process ends."""
    named = Resource({"service.name": "tallystick"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=named)
    provider.add_span_processor(BatchSpanProcessor(_Gate()))
    return Tracing(provider.get_tracer("tallystick"))
