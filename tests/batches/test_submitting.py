"""A job in the ledger: there whole or not at all, and the same however often it is submitted."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import func, select

from tallystick.contracts import RequestKey
from tallystick.errors import InvalidRequestError, RequestIdReusedError, UnknownCustomerError
from tallystick.ledger import attempts, batch_shards, batches, customers
from tallystick.ledger.attempts import NewAttempt
from tallystick.ledger.batch_tables import BatchItem, BatchJob, BatchShard, BatchTry, ShardState
from tallystick.ledger.batches import NewJob
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Attempt, Customer, Outcome
from tallystick.plans.batching import ItemError, ShardLimits, new_item
from tests.batches.stand import LIMITS, items_of, params_of, submit

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
WIDE = ShardLimits(100_000, 256_000_000)


@pytest_asyncio.fixture(autouse=True)
async def _customer(ledger: Ledger) -> None:
    async with ledger.begin() as tx:
        await customers.add(tx, Customer(customer_id="acme", name="Acme", plan="pass-through"))


async def rows(ledger: Ledger, table: Any) -> list[Any]:
    async with ledger.begin() as tx:
        return list(await tx.execute(select(table)))


async def planned(ledger: Ledger, job_id: str, limits: ShardLimits) -> list[BatchShard]:
    """Plan all that waits."""
    shards: list[BatchShard] = []
    async with ledger.begin() as tx:
        while (shard := await batch_shards.plan(tx, job_id, limits, NOW)) is not None:
            shards.append(shard)
    return shards


async def test_a_job_is_measured_and_its_bodies_come_back_as_they_went_in(ledger: Ledger) -> None:
    await submit(ledger, NewJob("job", "acme", Decimal(5), {"team": "a"}), items_of("job", 40))
    async with ledger.begin() as tx:
        job = await batches.existing(tx, "job")
        (shard,) = [await batch_shards.plan(tx, "job", WIDE, NOW)]
        assert shard is not None
        bodies = [body async for body in batch_shards.bodies(tx, shard)]
        progress = await batches.progress(tx, "job", NOW)
    items = list(items_of("job", 40))
    assert bodies == [(number, item.params) for number, item in enumerate(items)]
    assert job.items == progress.items == progress.waiting == 40
    assert job.highest_cost_usd == sum(item.highest_cost_usd for item in items)
    assert job.body_bytes == sum(item.body_bytes for item in items)
    assert job.estimated_input_tokens == sum(item.estimated_input_tokens for item in items)
    assert (job.max_cost_usd, job.caller_metadata) == (Decimal(5), {"team": "a"})
    assert progress.state == "submitted"


async def test_a_job_submitted_again_is_the_same_job(ledger: Ledger) -> None:
    for _ in range(2):
        await submit(ledger, NewJob("job", "acme"), items_of("job", 10))
    assert len(await rows(ledger, BatchItem)) == 10
    with pytest.raises(RequestIdReusedError, match="other items"):
        await submit(ledger, NewJob("job", "acme"), items_of("job", 11))
    async with ledger.begin() as tx:
        await customers.add(tx, Customer(customer_id="bolt", name="Bolt", plan="pass-through"))
    with pytest.raises(RequestIdReusedError, match="other items"):
        await submit(ledger, NewJob("job", "bolt"), items_of("job", 10))


async def test_a_job_that_cannot_be_is_not_there_at_all(ledger: Ledger) -> None:
    def some(*numbers: int, job_id: str = "job") -> Any:
        every = list(items_of(job_id, 10))
        return [every[number] for number in numbers]

    with pytest.raises(UnknownCustomerError, match="nobody"):
        await submit(ledger, NewJob("job", "nobody"), some(1))
    with pytest.raises(InvalidRequestError, match="no items"):
        await submit(ledger, NewJob("job", "acme"), some())
    with pytest.raises(InvalidRequestError, match="same request id"):
        await submit(ledger, NewJob("job", "acme"), some(1, 2, 1))
    async with ledger.begin() as tx:
        key = RequestKey(customer_id="acme", request_id="job/3")
        await attempts.begin_first(tx, NewAttempt(key, "f", "m", None, 1, 1), NOW)
    with pytest.raises(InvalidRequestError, match="'job/3' was used before"):
        await submit(ledger, NewJob("job", "acme"), some(2, 3))
    with pytest.raises(InvalidRequestError, match="meter events"):
        await submit(ledger, NewJob("job", "acme"), items_of("job/chunk/1-1", 1))
    assert await rows(ledger, BatchJob) == await rows(ledger, BatchItem) == []
    await submit(ledger, NewJob("job", "acme"), some(1))
    with pytest.raises(InvalidRequestError, match="another job"):
        await submit(ledger, NewJob("other", "acme"), some(1))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": "claude-unheard-of"}, "params.model"),
        ({"max_tokens": 0}, "params.max_tokens: must be at least 1"),
        ({"max_tokens": "many"}, "params.max_tokens"),
        ({"messages": []}, "params.messages"),
        ({"stream": True}, "params.stream"),
        ({"speed": "fast"}, "params.speed: not allowed in batches"),
        ({"store": True}, "params.store"),
        ({"system": "tally " * 200_000}, "over the limit of 100,000"),
        ({"max_tokens": 9_000_000}, "over the ceiling of \\$10"),
    ],
)
def test_what_would_refuse_a_whole_batch_is_refused_before_with_its_name(
    change: dict[str, Any], told: str
) -> None:
    with pytest.raises(ItemError, match=f"deed.txt: .*{told}"):
        new_item(
            {**params_of(1, "job"), **change},
            request_id="job/1",
            document="deed.txt",
            limits=LIMITS,
            at=NOW,
        )


def test_the_ceiling_is_held_against_the_batch_price() -> None:
    dear = {**params_of(0, "job"), "max_tokens": 1_500_000}  # $15 of output, half in a batch
    item = new_item(dear, request_id="job/1", limits=LIMITS, at=NOW)
    assert Decimal("7.5") < item.highest_cost_usd < 8


async def test_shards_are_cut_by_count_and_by_bytes_and_leave_an_attempt_for_each_item(
    ledger: Ledger,
) -> None:
    items = list(items_of("job", 25))
    await submit(ledger, NewJob("job", "acme"), items)
    most = 3 * max(item.body_bytes for item in items)
    shards = await planned(ledger, "job", ShardLimits(10, most))
    sizes = [shard.items for shard in shards]
    assert sum(sizes) == 25
    assert max(sizes) <= 10
    position = 0
    for shard in shards:
        whole = items[position : position + shard.items]
        following = items[position + shard.items : position + shard.items + 1]
        assert sum(item.body_bytes for item in whole) <= most
        full = sum(item.body_bytes for item in [*whole, *following]) > most
        assert full or shard.items == 10 or not following, "no shard is cut sooner than it must"
        assert (shard.first_number, shard.last_number) == (position, position + shard.items - 1)
        position += shard.items
    made = {row.attempt_id: row for row in await rows(ledger, Attempt)}
    tries = await rows(ledger, BatchTry)
    assert len(made) == len(tries) == 25
    for each in tries:
        attempt = made[each.attempt_id]
        assert attempt.request_id == items[each.number].request_id
        assert attempt.fingerprint == items[each.number].fingerprint
        assert attempt.prompt_chars == items[each.number].prompt_chars
        assert (attempt.number, attempt.outcome, each.round) == (1, Outcome.STARTED, 1)


async def test_an_item_larger_than_a_shard_has_one_of_its_own(ledger: Ledger) -> None:
    await submit(ledger, NewJob("job", "acme"), items_of("job", 3))
    assert [shard.items for shard in await planned(ledger, "job", ShardLimits(10, 1))] == [1, 1, 1]


async def test_a_lost_shard_goes_into_another_one_and_counts_as_no_try(ledger: Ledger) -> None:
    await submit(ledger, NewJob("job", "acme"), items_of("job", 4))
    (lost,) = await planned(ledger, "job", WIDE)
    async with ledger.begin() as tx:
        assert await batch_shards.set_sent(tx, lost, NOW)
        assert not await batch_shards.set_sent(tx, lost, NOW)
        assert await batch_shards.give_up(tx, lost, NOW, "nobody answered")
    (again,) = await planned(ledger, "job", WIDE)
    assert (again.shard, again.items) == (2, 4)
    assert {row.round for row in await rows(ledger, BatchTry)} == {1}
    outcomes = {(row.number, row.outcome) for row in await rows(ledger, Attempt)}
    assert outcomes == {(1, Outcome.INDETERMINATE), (2, Outcome.STARTED)}


async def test_nothing_of_a_cancelled_job_is_planned_or_sent(ledger: Ledger) -> None:
    await submit(ledger, NewJob("job", "acme"), items_of("job", 4))
    async with ledger.begin() as tx:
        shard = await batch_shards.plan(tx, "job", ShardLimits(2, 10**9), NOW)
        assert shard is not None
        await batches.note_cancelled(tx, "job", NOW)
        assert await batch_shards.plan(tx, "job", WIDE, NOW) is None
        assert not await batch_shards.set_sent(tx, shard, NOW)
        await batch_shards.drop(tx, shard, NOW)
        await batches.finish(tx, "job", NOW)
        progress = await batches.progress(tx, "job", NOW)
        left = select(func.count()).where(BatchItem.params.is_not(None))  # type: ignore[union-attr]
        assert (await tx.execute(left)).scalar_one() == 0, "no prompt is kept"
        (dropped,) = await batch_shards.in_state(tx, "job", ShardState.DROPPED)
    assert dropped.shard == shard.shard
    assert (progress.state, progress.canceled, progress.waiting) == ("ended", 4, 0)
    assert [row.outcome for row in await rows(ledger, Attempt)] == [Outcome.FAILED] * 2
