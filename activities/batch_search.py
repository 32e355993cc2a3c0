"""Whose batch is whose: finding the one of a create that was never answered, and noting it.

A batch echoes nothing of what was sent until it has ended, so it is known by when it was made and
by how many requests it has, and by being nobody else's in the ledger. That can be wrong where
others use the same key. Then the first line of its results tells, by its `custom_id`, or the answer
to the create does, where that comes late; and the shard's batch is another one (facts on Claude,
'Message Batches').

A shard that was given up has its items in another one by then. If its batch turns up after all it
is a second one: it gets cancelled, what it has served meanwhile is cost, and an operator is told.
"""

from contextlib import aclosing
from datetime import datetime

from activities.batch_api import Batch, BatchApi
from activities.transactions import transaction
from tallystick.ledger import batch_shards, batches
from tallystick.ledger.batch_tables import BatchShard
from tallystick.ledger.database import Ledger, Transaction
from tallystick.ledger.notices import raise_notice
from tallystick.plans.batching import CLOCKS_APART, could_be


async def find_batch(
    ledger: Ledger, api: BatchApi, shard: BatchShard, until: datetime
) -> Batch | None:
    """Return the batch that is probably the shard's, the one made closest to the create.

    Args:
        ledger: knows the batches of all other shards.
        api: lists those that there are.
        shard: one that was sent and has no batch.
        until: the latest that its create can have been worked on.

    Raises:
        ClaudeCallError: the batches cannot be listed.
    """
    sent_at = shard.sent_at
    assert sent_at is not None  # noqa: S101 - the state says so
    found: list[Batch] = []
    async with aclosing(api.newest_first()) as listed:
        async for batch in listed:
            if batch.created_at < sent_at - CLOCKS_APART:
                break
            fits = could_be(
                items=shard.items,
                sent_at=sent_at,
                until=until,
                batch_items=batch.items,
                created_at=batch.created_at,
            )
            if fits and batch.id not in shard.not_ours:
                found.append(batch)
    async with transaction(ledger) as tx:
        known = await batch_shards.known(tx, [batch.id for batch in found])
    return min(
        (batch for batch in found if batch.id not in known),
        key=lambda batch: abs(batch.created_at - sent_at),
        default=None,
    )


async def take(
    tx: Transaction, shard: BatchShard, batch: Batch, now: datetime, *, certain: bool
) -> None:
    """Note that the batch is the shard's; it changes nothing where the shard has one.

    `certain` says that the provider has named it in the answer to the shard's create. Whatever was
    taken for the shard's before was somebody else's then.
    """
    current = await batch_shards.get(tx, shard.job_id, shard.shard, locked=True)
    if certain and current.batch_id not in (None, batch.id):
        await batch_shards.set_not_ours(tx, current)
    taken = await batch_shards.set_running(
        tx, current, batch.id, batch.created_at, batch.expires_at
    )
    if taken and current.lost_at is not None:
        await _tell(
            tx,
            current,
            now,
            kind="batch_found",
            message=f"The batch {batch.id} of job {shard.job_id}, which was given up for lost, is "
            f"there: its {shard.items:,} requests may be served twice. It is cancelled; what it "
            "served meanwhile costs us, and no customer is charged twice.",
            batch_id=batch.id,
        )


async def give_up(tx: Transaction, shard: BatchShard, now: datetime) -> None:
    """Note that the shard's batch is not to be found; its items may go into another shard."""
    why = "its create was not answered, and no batch that could be its was found"
    if await batch_shards.give_up(tx, shard, now, why):
        await _tell(
            tx,
            shard,
            now,
            kind="batch_lost",
            message=f"The create of a batch of {shard.items:,} requests of job {shard.job_id} was "
            "not answered, and no such batch was found. Its requests are sent again; if it turns "
            "up all the same, it is cancelled.",
        )


async def _tell(
    tx: Transaction, shard: BatchShard, now: datetime, *, kind: str, message: str, **facts: str
) -> None:
    job = await batches.existing(tx, shard.job_id)
    await raise_notice(
        tx,
        job.customer_id,
        key=f"{kind}:{shard.job_id}:{shard.shard}",
        kind=kind,
        audience="operator",
        message=message,
        facts={"job_id": shard.job_id, "shard": shard.shard, "requests": shard.items, **facts},
        at=now,
    )
