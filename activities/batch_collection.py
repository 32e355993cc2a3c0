"""`follow_batches`: looks at what runs at the provider, and settles what has ended.

While nothing has ended, or not enough to be worth telling, it raises `BatchOpen` and is tried again
after a while: a retry adds nothing to the workflow's history, however long the provider takes.

What has ended is read from the provider's file in chunks, each of them one transaction
(`tallystick.ledger.batch_settling`). One is rated while the one before it is written. Where the
reading broke off it goes on; a batch counts as read only when each of its items has had a line and
the numbers of each type are those that the provider gives. A file that ended too soon is read
again from its begin, where whatever is settled does nothing.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.batch_api import Batch, BatchApi
from activities.batch_lines import chunks_of
from activities.batch_search import find_batch, take
from activities.batch_settling import ChunkRater, NotOursError, UnreadableLineError
from activities.claude_api import ClaudeCallError
from activities.failures import failure
from activities.heartbeats import heartbeating
from activities.transactions import transaction
from tallystick.contracts import BatchProgress, FollowOrder
from tallystick.errors import (
    BATCH_MISCOUNTED,
    BATCH_MISSING,
    BATCH_OPEN,
    BATCH_RESULTS_CUT,
    BATCH_UNKNOWN,
)
from tallystick.ledger import batch_settling, batch_shards, batches, terms
from tallystick.ledger.batch_settling import Billing, Chunk
from tallystick.ledger.batch_tables import BatchJob, BatchShard, ShardState
from tallystick.ledger.database import Ledger, Transaction
from tallystick.ledger.notices import raise_notice
from tallystick.payloads.columns import ColumnSeal
from tallystick.plans.batching import shard_mark

AT_ONCE = 2
"""Batches of a job that are settled side by side: while one waits for PostgreSQL, one rates."""
TOLD_PARTS = 5
"""The workflow is told whenever about a fifth of a job is done: so its history stays short, and
what it tells an operator fresh."""
NOT_SHOWN_FOR = timedelta(minutes=10)
"""A new batch may answer 404 for a while (anthropics/anthropic-sdk-python#1432)."""
CUT_AGAIN = 2.0
"""Seconds until a file that was cut is read on."""


class BatchCollectionActivities:
    """Settles the batches of jobs.

    Args:
        ledger: where jobs and shards are.
        api: the provider.
        poll: seconds between looks at what runs.
        clock: tells the present.
        seal: what the provider's lines are stored under.
        on_news: is told the customers whose balance calls for something; it must not wait.
    """

    def __init__(
        self,
        ledger: Ledger,
        api: BatchApi,
        *,
        poll: float,
        clock: Callable[[], datetime],
        seal: ColumnSeal,
        on_news: Callable[[str], None] | None = None,
    ):
        self._ledger = ledger
        self._api = api
        self._poll = poll
        self._clock = clock
        self._seal = seal
        self._on_news = on_news

    @activity.defn
    async def follow_batches(self, order: FollowOrder) -> BatchProgress:
        """Return when nothing runs any more, something is to be sent, or much more is done.

        Raises:
            ApplicationError: a row of the error table, those that pass first; `BatchOpen` while all
                is well and there is nothing to tell.
        """
        async with heartbeating():
            trouble = await self._look(order.job_id)
            now = self._clock()
            async with transaction(self._ledger) as tx:
                job = await batches.existing(tx, order.job_id)
                await batches.keep_reserved(tx, job, now)
                await self._tell(tx, job, trouble, now)
                progress = await batches.progress(tx, order.job_id, now)
                running = await batch_shards.in_state(tx, order.job_id, *_OPEN)
                to_decide = await batch_shards.in_state(tx, order.job_id, ShardState.SENT)
        passing = [error for error in trouble.values() if not error.non_retryable]
        if passing:
            raise max(passing, key=_wait)  # a `retry-after` is everybody's
        news = progress.done - order.done >= max(progress.items // TOLD_PARTS, 1)
        if not running or to_decide or news:
            return progress
        if all(shard.shard in trouble for shard in running):
            raise trouble[running[0].shard]
        raise failure(
            BATCH_OPEN,
            f"{progress.in_flight:,} of {progress.items:,} items are at the provider",
            retry_after=self._poll,
        )

    async def _look(self, job_id: str) -> dict[int, ApplicationError]:
        """Look at every shard that runs, some side by side; returns what went wrong with which.

        One that is in trouble holds up no other.
        """
        async with transaction(self._ledger) as tx:
            job = await batches.existing(tx, job_id)
            lost = await batch_shards.in_state(tx, job_id, ShardState.LOST)
        trouble = {shard.shard: await self._caught(self._find_lost(shard)) for shard in lost}
        async with transaction(self._ledger) as tx:
            running = await batch_shards.in_state(tx, job_id, *_OPEN)
        turns = asyncio.Semaphore(AT_ONCE)

        async def in_turn(shard: BatchShard) -> None:
            async with turns:
                trouble[shard.shard] = await self._caught(self._follow(job, shard))

        await asyncio.gather(*(in_turn(shard) for shard in running))
        return {shard: error for shard, error in trouble.items() if error is not None}

    async def _caught(self, step: Coroutine[Any, Any, None]) -> ApplicationError | None:
        """Return how the step failed, as the error that an activity raises; None where it did not.

        What passes is looked at again with the next look, unless there is a reason to be sooner or
        later. A backoff would count the looks that found nothing as failures.
        """
        try:
            await step
        except ClaudeCallError as error:
            cut = error.failure is BATCH_RESULTS_CUT
            wait = CUT_AGAIN if cut else error.retry_after or self._poll
            return failure(error.failure, str(error), retry_after=wait)
        except ApplicationError as error:
            return error
        return None

    async def _tell(
        self,
        tx: Transaction,
        job: BatchJob,
        trouble: Mapping[int, ApplicationError],
        now: datetime,
    ) -> None:
        """Tell an operator what only a person can mend; the other batches go on meanwhile."""
        for shard, error in trouble.items():
            if error.non_retryable:
                await raise_notice(
                    tx,
                    job.customer_id,
                    key=f"batch_stuck:{job.job_id}:{shard}:{error.type}",
                    kind="batch_stuck",
                    audience="operator",
                    message=f"A batch of job {job.job_id} is stuck: {error.message}.",
                    facts={"job_id": job.job_id, "shard": shard, "failure": error.type},
                    at=now,
                )

    async def _find_lost(self, shard: BatchShard) -> None:
        assert shard.lost_at is not None  # noqa: S101 - the state says so
        batch = await find_batch(self._ledger, self._api, shard, shard.lost_at)
        if batch is not None:
            async with transaction(self._ledger) as tx:
                await take(tx, shard, batch, self._clock(), certain=False)

    async def _follow(self, job: BatchJob, shard: BatchShard) -> None:
        assert shard.batch_id is not None  # noqa: S101 - the state says so
        assert shard.sent_at is not None  # noqa: S101 - as well
        batch = await self._api.retrieve(shard.batch_id)
        if batch is None:
            if self._clock() - shard.sent_at < NOT_SHOWN_FOR:
                return
            raise failure(
                BATCH_MISSING,
                f"the provider does not know the batch {shard.batch_id} of shard {shard.shard}",
            )
        unwanted = job.cancelled_at is not None or shard.lost_at is not None
        if unwanted and batch.may_be_canceled:
            await self._api.cancel(batch.id)
        if batch.has_ended:
            await self._collect(job, shard, batch)

    async def _collect(self, job: BatchJob, shard: BatchShard, batch: Batch) -> None:
        assert batch.ended_at is not None  # noqa: S101 - it has ended
        async with transaction(self._ledger) as tx:
            await batch_shards.set_ended(tx, shard, batch.ended_at, batch.tally)
            standing = await terms.standing(tx, job.customer_id, batch.ended_at)
            lost = await batch_shards.any_lost(tx, job.job_id)
        assert standing is not None  # noqa: S101 - admitted before
        assert standing.agreed is not None  # noqa: S101 - plans are append-only
        billing = Billing(
            job,
            standing.agreed,
            batch.ended_at,
            doubled=lost,
            keeps_content=standing.keeps_content,
        )
        try:
            await self._read(shard, batch, billing)
        except NotOursError as error:
            async with transaction(self._ledger) as tx:
                await batch_shards.set_not_ours(tx, shard)
            raise failure(BATCH_UNKNOWN, f"{batch.id} is somebody else's: {error}") from error
        except UnreadableLineError as error:
            raise failure(BATCH_MISCOUNTED, f"the results of {batch.id} have {error}") from error
        await self._verify(shard, batch)

    async def _read(self, shard: BatchShard, batch: Batch, billing: Billing) -> None:
        """Settle the file from the cursor on, rating each chunk while the last is written."""
        rater = ChunkRater(shard_mark(shard.job_id, shard.shard), billing, self._seal)
        writing: asyncio.Task[None] | None = None
        try:
            async with (
                aclosing(self._api.results(batch)) as blocks,
                aclosing(chunks_of(blocks, shard.bytes_read)) as chunks,
            ):
                async for lines, begins in chunks:
                    chunk = await asyncio.to_thread(rater.rate, lines, begins)
                    if writing is not None:
                        await writing
                    writing = asyncio.create_task(self._settle(shard, chunk, billing))
        finally:
            if writing is not None:
                await writing

    async def _settle(self, shard: BatchShard, chunk: Chunk, billing: Billing) -> None:
        async with transaction(self._ledger) as tx:
            news = await batch_settling.settle(tx, shard, chunk, billing)
        if news and self._on_news is not None:
            self._on_news(billing.job.customer_id)

    async def _verify(self, shard: BatchShard, batch: Batch) -> None:
        """Settle the shard if the file was whole, by the provider's own counts."""
        async with transaction(self._ledger) as tx:
            unread = await batch_settling.unread(tx, shard)
            read = await batch_shards.get(tx, shard.job_id, shard.shard, locked=True)
            if unread:
                await batch_settling.read_again(tx, read)
            elif read.tallied == batch.tally:
                await batch_shards.set_settled(tx, read)
        if unread:
            raise failure(
                BATCH_RESULTS_CUT,
                f"the results of {batch.id} ended {unread:,} line(s) too soon",
                retry_after=CUT_AGAIN,
            )
        if read.tallied != batch.tally:
            raise failure(
                BATCH_MISCOUNTED,
                f"the results of {batch.id} are {read.tallied}, the provider counts {batch.tally}",
            )


_OPEN = (ShardState.RUNNING, ShardState.ENDED)


def _wait(error: ApplicationError) -> timedelta:
    return error.next_retry_delay or timedelta(0)
