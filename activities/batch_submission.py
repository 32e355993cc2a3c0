"""`submit_batches`: every item of a job goes into a batch at the provider, exactly once.

Creates have no idempotency. So each shard is sent once, and that it is about to be sent is
committed before. What comes back decides: a batch, a refusal, or nothing. After nothing, nobody
knows whether there is a batch; it is looked for, again and again for a while since lists lag, and
only then are the items put into another shard. The lost one stays in the ledger with its attempts,
of unknown outcome, and if its batch turns up all the same it is cancelled (`batch_collection`).

The activity does whatever the ledger says is left to do, so it can die anywhere and be repeated.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from temporalio import activity

from activities.batch_api import BatchApi
from activities.batch_search import find_batch, give_up, take
from activities.claude_api import ClaudeCallError
from activities.failures import failure
from activities.heartbeats import heartbeating
from activities.transactions import transaction
from tallystick.contracts import BatchOrder
from tallystick.errors import (
    BATCH_UNKNOWN,
    CLAUDE_FORBIDDEN,
    CLAUDE_OVERLOADED,
    CLAUDE_PAYMENT_REQUIRED,
    CLAUDE_RATE_LIMITED,
    CLAUDE_REJECTED,
    CLAUDE_SPEND_LIMIT,
)
from tallystick.ledger import batch_shards
from tallystick.ledger.batch_tables import BatchShard, ShardState
from tallystick.ledger.database import Ledger
from tallystick.payloads.columns import ColumnSeal
from tallystick.plans.batching import ShardLimits, shard_mark

LOOK_AGAIN = 10.0
"""Seconds between looks for a batch, at the most."""
_NOT_MADE = (
    CLAUDE_RATE_LIMITED,
    CLAUDE_OVERLOADED,
    CLAUDE_SPEND_LIMIT,
    CLAUDE_PAYMENT_REQUIRED,
    CLAUDE_FORBIDDEN,
)
"""Answers that say for certain that no batch was made, for reasons that are not the batch's."""


class BatchSubmissionActivities:
    """Sends the shards of jobs.

    Args:
        ledger: where jobs and shards are.
        api: the provider.
        limits: how much goes into one shard.
        looked_for: how long the batch of an unanswered create is looked for.
        clock: tells the present.
        seal: what prompts are stored under.
    """

    def __init__(
        self,
        ledger: Ledger,
        api: BatchApi,
        *,
        limits: ShardLimits,
        looked_for: timedelta,
        clock: Callable[[], datetime],
        seal: ColumnSeal,
    ):
        self._ledger = ledger
        self._seal = seal
        self._api = api
        self._limits = limits
        self._looked_for = looked_for
        self._clock = clock

    @activity.defn
    async def submit_batches(self, order: BatchOrder) -> None:
        """Return when all items that wait are at the provider, or refused, or the job cancelled.

        Raises:
            ApplicationError: a row of the error table; `BatchOutcomeUnknown`, to be tried again,
                while a batch is looked for.
        """
        async with heartbeating():
            async with transaction(self._ledger) as tx:
                begun = await batch_shards.in_state(
                    tx, order.job_id, ShardState.PLANNED, ShardState.SENT
                )
            undecided = [shard for shard in begun if not await self._decide(shard)]
            start = 0
            while (shard := await self._plan(order.job_id, start)) is not None:
                start = shard.last_number + 1
                if not await self._decide(shard):
                    undecided.append(shard)
        if undecided:
            raise failure(
                BATCH_UNKNOWN,
                f"{len(undecided)} create(s) were not answered; their batches are looked for",
                retry_after=min(LOOK_AGAIN, self._looked_for.total_seconds() / 3),
            )

    async def _plan(self, job_id: str, start: int) -> BatchShard | None:
        async with transaction(self._ledger) as tx:
            return await batch_shards.plan(tx, job_id, self._limits, self._clock(), start=start)

    async def _decide(self, shard: BatchShard) -> bool:
        """Bring a shard to where its batch is known, or known not to be; False while it is not."""
        if shard.state == ShardState.PLANNED:
            sent = await self._send(shard)
            if sent is None:
                return True
            shard = sent
        now = self._clock()  # before the look: how long that takes is no time to be found in
        try:
            batch = await find_batch(self._ledger, self._api, shard, now)
        except ClaudeCallError as error:
            # With its causes it would exceed what Temporal keeps of a failure, and show nothing.
            raise failure(error.failure, str(error), retry_after=error.retry_after) from None
        assert shard.sent_at is not None  # noqa: S101 - it was sent
        if batch is None and now - shard.sent_at < self._looked_for:
            return False
        async with transaction(self._ledger) as tx:
            if batch is not None:
                await take(tx, shard, batch, now, certain=False)
            else:
                await give_up(tx, shard, now)
        return True

    async def _send(self, shard: BatchShard) -> BatchShard | None:
        """Make the create; returns the shard as sent where it brought no answer, else None."""
        body = await self._body(shard)
        async with transaction(self._ledger) as tx:
            if not await batch_shards.set_sent(tx, shard, self._clock()):
                await batch_shards.drop(tx, shard, self._clock())
                return None
            sent = await batch_shards.get(tx, shard.job_id, shard.shard)
        try:
            batch = await self._api.create(body)
        except ClaudeCallError as error:
            if error.failure in _NOT_MADE:
                async with transaction(self._ledger) as tx:
                    await batch_shards.set_unsent(tx, sent)
                raise failure(error.failure, str(error), retry_after=error.retry_after) from None
            if error.failure is CLAUDE_REJECTED:
                async with transaction(self._ledger) as tx:
                    await batch_shards.refuse(tx, sent, self._clock(), error.failure, str(error))
                return None
            activity.logger.warning("a create was not answered: %s", error)
            return sent
        async with transaction(self._ledger) as tx:
            await take(tx, sent, batch, self._clock(), certain=True)
        return None

    async def _body(self, shard: BatchShard) -> bytes:
        mark = shard_mark(shard.job_id, shard.shard)
        async with transaction(self._ledger) as tx:
            requests = [
                f'{{"custom_id":"{mark}{number}","params":{self._seal.read_text(params)}}}'.encode()
                async for number, params in batch_shards.bodies(tx, shard)
            ]
        return b'{"requests":[' + b",".join(requests) + b"]}"
