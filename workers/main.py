"""One worker process: opens its clients, polls the queues of its roles, and stops cleanly.

SIGTERM and SIGINT stop polling at once; calls in flight get `TALLYSTICK_SHUTDOWN_GRACE` seconds to
finish, and an answer that Claude has already given is committed before the process ends. A worker
that is killed instead loses nothing either: Temporal hands its work to another one, and the
attempts table says what is known. So a second signal may end it at once.
"""

import asyncio
import logging
import signal
from collections.abc import AsyncGenerator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from enum import StrEnum

from temporalio.client import Client
from temporalio.worker import Worker

from activities.admission import AdmissionActivities
from activities.claude import ClaudeActivities
from activities.ledger import LedgerActivities
from activities.metering import MeteringActivities
from activities.payloads import PayloadActivities
from activities.quoting import QuotingActivities
from activities.stripe_catalog import ensure_catalog, missing_meters
from activities.stripe_clients import stripe_client
from activities.stripe_meters import meter_transport
from tallystick.contracts import CLAUDE_TASK_QUEUE, TASK_QUEUE
from tallystick.errors import TallystickError
from tallystick.exiting import end_process
from tallystick.ledger.database import Ledger
from tallystick.ledger.migrate import require_current
from tallystick.payloads.columns import ColumnSeal
from tallystick.payloads.converter import keeping_in
from tallystick.payloads.ledger_storage import LedgerStorage
from tallystick.plans.guards import Limits
from tallystick.services import Endpoints, database, endpoints
from tallystick.settings import Settings, SettingsError
from tallystick.temporal import connect_temporal
from tallystick.web.serving import serve
from workers.batching import batching
from workers.beating import Beating
from workers.billing import Nudges, billing_activities
from workers.health import Health, health_app
from workers.metrics import CountedClaude, CountedMeters, use_runtime
from workers.plugin import TallystickPlugin
from workers.reconciling import reconciling
from workers.versioning import deployment_config
from workers.vitals import watching

log = logging.getLogger("tallystick.worker")

CACHED_RUNS = 128
"""Runs whose state one process keeps, so that it need not replay them, or twice its Claude calls if
those are more; the one that was idle for longest leaves first. A process at its full rate has about
115 requests under way: 64 calls (`claude_concurrency`), and 17 a second that wait 3 seconds for
Stripe. What else it would keep waits for a person or an outage, or was finished by another worker,
of which it never hears: with the SDK's 1,000 its memory grows for hours. A run that is kept costs
90 kB and twelve times its prompt, 1.3 MB with one of 100 kB; a run that has left costs a call to
Temporal and 20 ms of CPU when it goes on (measured)."""


class Role(StrEnum):
    """What a worker process does; several processes may share a role."""

    REQUESTS = "requests"
    """Workflows, ledger steps, metering, accounts and reconciliation, on the queue `tallystick`."""
    CLAUDE = "claude"
    """Claude calls, on the queue `tallystick-claude`."""


async def run_worker(settings: Settings, roles: Collection[Role]) -> None:
    """Work until SIGTERM or SIGINT.

    Raises:
        SettingsError: when the keys are half set, or a port is taken.
        LedgerUnavailableError: when PostgreSQL does not answer.
        TallystickError: when the database is not set up, or Temporal does not answer.
    """
    stop = _stop_signals()
    use_runtime(settings)
    health = Health()
    async with AsyncExitStack() as stack:
        if settings.health_port is not None:
            await stack.enter_async_context(
                serve(
                    health_app(health),
                    host=settings.monitor_host,
                    port=settings.health_port,
                    asked_by="TALLYSTICK_HEALTH_PORT",
                )
            )
        where = await stack.enter_async_context(endpoints(settings))
        url = stack.enter_context(database(settings))
        # Told now, in one line; otherwise every activity would fail and be retried for hours.
        await asyncio.to_thread(require_current, url)
        for name in sorted(where.sandboxed):
            log.warning("the sandbox stands in for %s: no real service is called", name)
        if "stripe" in where.sandboxed:
            async with stripe_client(where, settings) as stripe:
                await ensure_catalog(stripe)  # a stand-in starts empty; an account is its owner's
        client = await connect_temporal(settings.temporal_address)
        watched = Ledger(url, pool_size=2)
        stack.push_async_callback(watched.close)
        if settings.metrics_port is not None:
            stack.enter_context(watching(watched))
        await stack.enter_async_context(working(client, url, where, settings, roles))
        health.works(client, watched)
        log.info(
            "working on %s, %s",
            ", ".join(sorted(roles)),
            "unversioned"
            if settings.version is None
            else "as {}, build {}".format(*settings.version),
        )
        await stop.wait()
        health.drains()
        log.info("stopping: calls in flight get %s seconds", settings.shutdown_grace)


def _stop_signals() -> asyncio.Event:
    """Return what SIGTERM or SIGINT sets; a second one ends the process at once."""
    stop = asyncio.Event()

    def told(number: int) -> None:
        if stop.is_set():
            log.warning("told to stop again: ending at once; others take over what was in flight")
            end_process(128 + number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told, number)
    return stop


@asynccontextmanager
async def working(
    client: Client,
    database_url: str,
    where: Endpoints,
    settings: Settings,
    roles: Collection[Role],
) -> AsyncGenerator[None, None]:
    """Poll the queues of `roles` while the context is open, and drain on leaving it."""
    grace = timedelta(seconds=settings.shutdown_grace)
    version = deployment_config(settings)
    workers: list[Worker] = []
    async with AsyncExitStack() as stack:
        ledger = Ledger(database_url, pool_size=settings.ledger_concurrency)
        stack.push_async_callback(ledger.close)
        client = keeping_in(LedgerStorage(ledger), client, settings.keyring)
        seal = ColumnSeal(settings.keyring)
        api = CountedClaude(
            where.anthropic_api_key.get_secret_value(),
            where.anthropic_base_url,
            timeout=settings.claude_timeout,
        )
        stack.push_async_callback(api.close)
        if Role.CLAUDE in roles:
            claude = ClaudeActivities(
                ledger, api, max_unknown_outcomes=settings.max_unknown_outcomes, seal=seal
            )
            stack.push_async_callback(claude.drain)
            rpm = settings.claude_rpm
            workers.append(
                Worker(
                    client,
                    task_queue=CLAUDE_TASK_QUEUE,
                    activities=[claude.call_claude],
                    max_concurrent_activities=settings.claude_concurrency,
                    # Over all workers: the server holds back what would exceed it.
                    max_task_queue_activities_per_second=rpm / 60 if rpm else None,
                    graceful_shutdown_timeout=grace,
                    deployment_config=version,
                )
            )
        if Role.REQUESTS in roles:
            await _want_meters(where, settings, database_url)
            transport = CountedMeters(
                await stack.enter_async_context(meter_transport(where, settings, database_url))
            )
            metering = MeteringActivities(ledger, transport, linger=settings.meter_linger)
            stack.push_async_callback(metering.drain)
            admission = AdmissionActivities(
                ledger,
                api,
                Limits(settings.max_input_tokens, settings.max_cost_usd),
                conversation_cap_usd=settings.conversation_cap_usd,
            )
            nudges = Nudges(client)
            stack.push_async_callback(nudges.drain)
            steps = LedgerActivities(ledger, nudges, seal=seal)
            billing = await stack.enter_async_context(
                billing_activities(ledger, client, where, settings)
            )
            batches = await stack.enter_async_context(
                batching(ledger, where, settings, metering.send_meter_events, nudges)
            )
            reconciliation = await stack.enter_async_context(
                reconciling(ledger, where, settings, transport)
            )
            quoting = QuotingActivities(ledger, api)
            large = PayloadActivities(ledger, client)
            workers.append(
                Worker(
                    client,
                    task_queue=TASK_QUEUE,
                    activities=[
                        admission.admit_request,
                        steps.record_usage,
                        steps.abandon_request,
                        metering.send_meter_events,
                        quoting.quote_request,
                        large.keep_payload_part,
                        large.fetch_payload_part,
                        large.sweep_payloads,
                        *billing,
                        *batches,
                        *reconciliation,
                    ],
                    plugins=[TallystickPlugin()],
                    interceptors=[Beating()],
                    max_cached_workflows=max(CACHED_RUNS, 2 * settings.claude_concurrency),
                    max_concurrent_activities=settings.meter_concurrency,
                    max_concurrent_local_activities=settings.ledger_concurrency,
                    graceful_shutdown_timeout=grace,
                    deployment_config=version,
                )
            )
        for worker in workers:
            await stack.enter_async_context(worker)
        try:
            yield
        finally:
            # Together: one that still drained while the other polled would take new calls, and
            # the grace would last twice.
            await asyncio.gather(*(worker.shutdown() for worker in workers))


async def _want_meters(where: Endpoints, settings: Settings, database_url: str) -> None:
    """Refuse to start while Stripe lacks a meter; an unreachable Stripe holds nobody up.

    Stripe takes events for a meter it does not have, answers 200 and drops them later.
    """
    try:
        async with stripe_client(where, settings, database_url) as client:
            missing = await missing_meters(client)
    except TallystickError as error:
        log.warning("whether Stripe has our meters is not known: %s", error)
        return
    if missing:
        raise SettingsError(
            f"Stripe lacks the meters {', '.join(missing)}; run `tallystick stripe setup`"
        )
