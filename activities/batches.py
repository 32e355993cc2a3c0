"""The activities of batch jobs: what a worker registers, and the steps that are the ledger's alone.

Each does whatever the ledger says is left to do, so each may die anywhere and be repeated:
`admit_batch`, `submit_batches`, `follow_batches` have modules of their own. Here are metering,
cancelling and the end of a job, and `batch_progress`, which tells how far one is without its
workflow.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.batch_admission import BatchAdmissionActivities
from activities.batch_api import BatchApi
from activities.batch_collection import BatchCollectionActivities
from activities.batch_submission import BatchSubmissionActivities
from activities.claude_api import ClaudeCallError
from activities.failures import failure
from activities.heartbeats import heartbeating
from activities.transactions import transaction
from tallystick.contracts import (
    BATCH_PROGRESS,
    BatchOrder,
    BatchProgress,
    MeterOrder,
    MeterReceipt,
    RequestKey,
)
from tallystick.errors import INVALID_REQUEST
from tallystick.ledger import batch_shards, batches, reservations
from tallystick.ledger.batch_tables import ShardState
from tallystick.ledger.database import Ledger
from tallystick.payloads.columns import ColumnSeal
from tallystick.plans.batching import LOOKED_FOR, ShardLimits

METERED_AT_ONCE = 50
"""Chunks whose events are handed over together: some hundred events, a few calls to Stripe."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class BatchPace:
    """How a worker goes about batches.

    Args:
        limits: how much goes into one batch at the provider.
        poll: seconds between looks at what runs.
        looked_for: how long the batch of an unanswered create is looked for.
    """

    limits: ShardLimits
    poll: float
    looked_for: timedelta = LOOKED_FOR


def batch_activities(
    ledger: Ledger,
    api: BatchApi,
    send_meter_events: Callable[[MeterOrder], Awaitable[MeterReceipt]],
    pace: BatchPace,
    *,
    clock: Callable[[], datetime] = _utc_now,
    seal: ColumnSeal | None = None,
    on_news: Callable[[str], None] | None = None,
) -> list[Callable[..., Any]]:
    """Return what a worker of the queue `tallystick` registers for batch jobs.

    Args:
        ledger: where jobs are.
        api: Message Batches at the provider.
        send_meter_events: the activity of that name, through which chunks share calls to Stripe
            with everything else.
        pace: how to go about it.
        clock: tells the present.
        seal: what prompts and replies are stored under; None stores them as they are.
        on_news: is told the customers whose balance calls for something; it must not wait.
    """
    admission = BatchAdmissionActivities(ledger, clock)
    seal = seal or ColumnSeal()
    submission = BatchSubmissionActivities(
        ledger, api, limits=pace.limits, looked_for=pace.looked_for, clock=clock, seal=seal
    )
    collection = BatchCollectionActivities(
        ledger, api, poll=pace.poll, clock=clock, seal=seal, on_news=on_news
    )
    steps = BatchActivities(ledger, api, send_meter_events, clock)
    return [
        admission.admit_batch,
        submission.submit_batches,
        collection.follow_batches,
        steps.meter_batch,
        steps.cancel_batch,
        steps.finish_batch,
        steps.batch_progress,
    ]


class BatchActivities:
    """The other steps of a job; see `batch_activities` for what they are given."""

    def __init__(
        self,
        ledger: Ledger,
        api: BatchApi,
        send_meter_events: Callable[[MeterOrder], Awaitable[MeterReceipt]],
        clock: Callable[[], datetime],
    ):
        self._ledger = ledger
        self._api = api
        self._send = send_meter_events
        self._clock = clock

    @activity.defn
    async def meter_batch(self, order: BatchOrder) -> None:
        """Return when Stripe has acknowledged all events that the job has in the outbox by now.

        Where it broke off is in the outbox: what was acknowledged is not there any more.

        Raises:
            ApplicationError: a row of the error table; those that pass first.
        """
        async with heartbeating():
            async with transaction(self._ledger) as tx:
                waiting = await batches.unmetered(tx, order.job_id)
            trouble: list[BaseException] = []
            for start in range(0, len(waiting), METERED_AT_ONCE):
                some = waiting[start : start + METERED_AT_ONCE]
                sent = await asyncio.gather(*map(self._send, some), return_exceptions=True)
                trouble += [each for each in sent if isinstance(each, BaseException)]
        if trouble:
            raise min(trouble, key=_is_final)

    @activity.defn
    async def cancel_batch(self, order: BatchOrder) -> BatchProgress:
        """Note that the job is to be cancelled, and ask the provider to cancel what runs of it.

        What it does not cancel now, because it cannot be seen yet, is cancelled by
        `follow_batches`. A job that has ended stays as it is.
        """
        now = self._clock()
        async with transaction(self._ledger) as tx:
            await batches.note_cancelled(tx, order.job_id, now)
            running = await batch_shards.in_state(tx, order.job_id, ShardState.RUNNING)
        for shard in running:
            assert shard.batch_id is not None  # noqa: S101 - the state says so
            try:
                await self._api.cancel(shard.batch_id)
            except ClaudeCallError as error:
                raise failure(error.failure, str(error), retry_after=error.retry_after) from None
        return await self._progress(order.job_id)

    @activity.defn
    async def finish_batch(self, order: BatchOrder) -> BatchProgress:
        """End the job and give back what it still has reserved."""
        async with heartbeating(), transaction(self._ledger) as tx:
            job = await batches.existing(tx, order.job_id)
            await batches.finish(tx, order.job_id, self._clock())
            key = RequestKey(customer_id=job.customer_id, request_id=job.job_id)
            await reservations.release(tx, key)
        return await self._progress(order.job_id)

    @activity.defn(name=BATCH_PROGRESS)
    async def batch_progress(self, order: BatchOrder) -> BatchProgress:
        """Return how far the job is now, read from the ledger."""
        return await self._progress(order.job_id)

    async def _progress(self, job_id: str) -> BatchProgress:
        async with transaction(self._ledger) as tx:
            if await batches.get(tx, job_id) is None:
                raise failure(INVALID_REQUEST, f"job_id: no job {job_id!r} was submitted")
            return await batches.progress(tx, job_id, self._clock())


def _is_final(error: BaseException) -> bool:
    return isinstance(error, ApplicationError) and error.non_retryable
