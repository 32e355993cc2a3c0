"""Prometheus: Temporal's own metrics and ours, from one exporter of one runtime in a process.

The SDK's runtime exports what its core counts (polls, latencies, slots) and whatever is counted on
its meter, so no further library and no second port is needed. It has to be the default before the
first client connects, since a client keeps the runtime that it began with.

What a request came to is counted by its workflow (`workflows.counting`); what goes to the providers
is counted here, around the two objects that make the calls, so that no call escapes and no retry
that made none is counted. Without an exporter the meter is a silent one.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from temporalio.common import MetricMeter
from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    PrometheusConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)

from activities.claude_api import Answer, ClaudeApi, ClaudeCallError, Listener
from activities.stripe_meters import Answers, MeterTransport, OutgoingEvent
from activities.stripe_summaries import MeterSummaries
from tallystick.ledger.tables import Outcome
from tallystick.logs import TEMPORAL_LOGGER
from tallystick.settings import Settings, SettingsError


def use_runtime(settings: Settings) -> None:
    """Let clients of this process log as we log, and export metrics where the settings say so.

    Raises:
        SettingsError: when the port of the metrics is taken.
    """
    where = f"{settings.monitor_host}:{settings.metrics_port}"
    exporter = PrometheusConfig(
        bind_address=where,
        counters_total_suffix=True,
        unit_suffix=True,
        durations_as_seconds=True,
    )
    telemetry = TelemetryConfig(
        logging=LoggingConfig(
            filter=TelemetryFilter(core_level="WARN", other_level="ERROR"),
            forwarding=LogForwardingConfig(logger=TEMPORAL_LOGGER),
        ),
        metrics=exporter if settings.metrics_port is not None else None,
        attach_service_name=False,
    )
    try:
        runtime = Runtime(telemetry=telemetry)
    except ValueError as error:
        raise SettingsError(
            f"TALLYSTICK_METRICS_PORT: cannot listen on {where} ({error}); each worker process of "
            "a machine needs a port of its own"
        ) from error
    Runtime.set_default(runtime)


def meter() -> MetricMeter:
    """Return the meter of this process's runtime."""
    return Runtime.default().metric_meter


class CountedClaude(ClaudeApi):
    """Claude, with its calls counted."""

    def __init__(self, api_key: str, base_url: str | None, *, timeout: float):
        super().__init__(api_key, base_url, timeout=timeout)
        self._calls = meter().create_counter("tallystick_claude_calls", "Calls to Claude.")

    async def create(self, params: Mapping[str, Any], listener: Listener | None = None) -> Answer:
        """Make one call and count how it ended; one that is cut off by a stop has no outcome."""
        outcome, type_ = Outcome.INDETERMINATE, ""
        try:
            answer = await super().create(params, listener)
            outcome = Outcome.SUCCEEDED
        except ClaudeCallError as error:
            type_ = error.failure.type
            outcome = Outcome.INDETERMINATE if error.failure.indeterminate else Outcome.FAILED
            raise
        else:
            return answer
        finally:
            self._calls.add(1, {"outcome": outcome.value, "type": type_})


class CountedMeters:
    """A way to Stripe's meters, with what it acknowledged and refused counted."""

    def __init__(self, transport: MeterTransport):
        self._transport = transport
        self._events = meter().create_counter(
            "tallystick_meter_events", "Meter events sent to Stripe, by what came of it."
        )

    @property
    def summaries(self) -> MeterSummaries:
        """What Stripe has counted."""
        return self._transport.summaries

    async def send(self, events: Sequence[OutgoingEvent]) -> Answers:
        """Send the events and count the answers."""
        answers = await self._transport.send(events)
        ends = Counter(
            ("delivered", "") if answer is None else (answer.row.action.value, answer.row.type)
            for answer in answers
        )
        for (outcome, type_), number in ends.items():
            self._events.add(number, {"outcome": outcome, "type": type_})
        return answers
