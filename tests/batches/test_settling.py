"""Settling: whatever is read, in whatever order and however often, is billed once."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest_asyncio
from sqlalchemy import select

from activities.batch_settling import ChunkRater
from tallystick.contracts import RequestKey
from tallystick.ledger import (
    accounts,
    batch_settling,
    batch_shards,
    batches,
    customers,
    reservations,
    terms,
    wallet,
)
from tallystick.ledger.account_tables import EntryKind, GrantKind, WalletEntry
from tallystick.ledger.batch_settling import Billing
from tallystick.ledger.batch_tables import BatchResult, BatchShard, ItemOutcome
from tallystick.ledger.batches import NewJob
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import (
    Attempt,
    Customer,
    MeterEvent,
    Outcome,
    Reservation,
    UsageRecord,
)
from tallystick.metering import CHARGE_METER, TOKEN_KINDS, token_meter
from tallystick.money import to_nano_usd
from tallystick.plans.batching import ShardLimits, shard_mark
from tests.batches.stand import items_of, submit
from tests.pricing.replies import reply, usage

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
ENDED = NOW + timedelta(hours=1)
RESERVED = 10**12
Line = tuple[int, dict[str, Any]]


def succeeded(number: int, **used: int) -> Line:
    counts = {"input": 100 + number, "output": 10 + number, "read": number % 2 * 50, **used}
    message = reply("claude-sonnet-5-5", usage(**counts, service_tier="batch"))
    return number, {"type": "succeeded", "message": {**message, "id": f"msg_{number}"}}


def errored(number: int, type_: str) -> Line:
    error = {"type": "error", "error": {"type": type_, "message": f"no {number}"}}
    return number, {"type": "errored", "error": error}


class Desk:
    """A job of some items in one shard that has ended, ready to be settled."""

    def __init__(self, ledger: Ledger, customer: str):
        self.ledger, self.customer = ledger, customer

    async def send(
        self, items: int, *, job_id: str = "job", batch_id: str = "msgbatch_1"
    ) -> BatchShard:
        """Submit the job if it is not there, and put all that waits into a batch."""
        async with self.ledger.begin() as tx:
            known = await batches.get(tx, job_id)
        if known is None:
            await submit(self.ledger, NewJob(job_id, self.customer), items_of(job_id, items))
            async with self.ledger.begin() as tx:
                key = RequestKey(customer_id=self.customer, request_id=job_id)
                await reservations.reserve(tx, key, conversation_id=None, nano_usd=RESERVED, at=NOW)
        async with self.ledger.begin() as tx:
            shard = await batch_shards.plan(tx, job_id, ShardLimits(10**5, 10**9), NOW)
            assert shard is not None
            await batch_shards.set_sent(tx, shard, NOW)
            await batch_shards.set_running(tx, shard, batch_id, NOW, NOW + timedelta(days=1))
            await batch_shards.set_ended(tx, shard, ENDED, {})
            return await batch_shards.get(tx, job_id, shard.shard)

    async def lose(self, items: int, *, job_id: str = "job") -> BatchShard:
        """Submit a job, send all of it, and give up the batch for lost."""
        await submit(self.ledger, NewJob(job_id, self.customer), items_of(job_id, items))
        async with self.ledger.begin() as tx:
            shard = await batch_shards.plan(tx, job_id, ShardLimits(10**5, 10**9), NOW)
            assert shard is not None
            await batch_shards.set_sent(tx, shard, NOW)
            await batch_shards.give_up(tx, shard, NOW, "nobody answered")
        return shard

    async def settle(self, shard: BatchShard, lines: Sequence[Line], *, at: int = 0) -> bool:
        """Settle lines as they would be in the file from some byte on."""
        async with self.ledger.begin() as tx:
            job = await batches.existing(tx, shard.job_id)
            standing = await terms.standing(tx, self.customer, ENDED)
            doubled = await batch_shards.any_lost(tx, shard.job_id)
        assert standing is not None
        assert standing.agreed is not None
        billing = Billing(job, standing.agreed, ENDED, doubled=doubled)
        mark = shard_mark(shard.job_id, shard.shard)
        raw = [
            json.dumps({"custom_id": f"{mark}{number}", "result": result}).encode() + b"\n"
            for number, result in lines
        ]
        chunk = ChunkRater(mark, billing).rate(raw, at)
        async with self.ledger.begin() as tx:
            return await batch_settling.settle(tx, shard, chunk, billing)

    async def rows(self, table: Any) -> list[Any]:
        async with self.ledger.begin() as tx:
            return list(await tx.execute(select(table)))

    async def must_tally(self) -> None:
        """The events are the records' sums, meter by meter; the shards' counters are theirs too."""
        records, events = await self.rows(UsageRecord), await self.rows(MeterEvent)
        shards = await self.rows(BatchShard)
        told = Counter[str]()
        for event in events:
            told[event.meter] += event.value
            assert event.usage_record_id is None
            assert (event.occurred_at, event.billed_at) == (ENDED, records[0].billed_at)
        due = {CHARGE_METER: sum(record.charge_nano_usd or 0 for record in records)}
        for kind in TOKEN_KINDS:
            due[token_meter(kind)] = sum(getattr(record, f"{kind}_tokens") for record in records)
        assert told == Counter({meter: value for meter, value in due.items() if value})
        assert sum(shard.charge_nano_usd for shard in shards) == due[CHARGE_METER]
        assert sum(shard.cost_usd for shard in shards) == sum(r.cost_usd or 0 for r in records)
        assert len({event.identifier for event in events}) == len(events)


@pytest_asyncio.fixture
async def desk(ledger: Ledger) -> Desk:
    async with ledger.begin() as tx:
        await customers.add(tx, Customer(customer_id="acme", name="Acme", plan="pass-through"))
    return Desk(ledger, "acme")


async def test_an_item_leaves_what_any_other_request_leaves(desk: Desk) -> None:
    shard = await desk.send(3)
    await desk.settle(shard, [succeeded(0), succeeded(1), succeeded(2)])
    attempts = {row.request_id: row for row in await desk.rows(Attempt)}
    for record in await desk.rows(UsageRecord):
        attempt = attempts[record.request_id]
        assert record.attempt_id == attempt.attempt_id
        assert (attempt.outcome, attempt.finished_at) == (Outcome.SUCCEEDED, ENDED)
        assert record.message_id == attempt.message_id == f"msg_{record.request_id[4:]}"
        assert record.claude_request_id == attempt.claude_request_id == "msgbatch_1"
        assert (record.served_at, record.billed_at) == (ENDED, ENDED)
        assert (record.attempts, record.status) == (1, "priced")
        assert record.fingerprint == attempt.fingerprint
        assert record.prompt_chars == attempt.prompt_chars
        assert record.evidence["usage"]["service_tier"] == "batch"
        assert record.caller_metadata == {"document": f"page-{record.request_id[4:]}.txt"}
        assert "The batch price saved" in record.explanation
        # $2 and $10 a million, halved, and the plan's 20 % on top
        spent = Decimal(record.input_tokens) + 5 * record.output_tokens
        spent += Decimal("0.05") * record.cache_read_tokens
        assert record.cost_usd == spent / 10**6
        assert record.charge_nano_usd == to_nano_usd(record.cost_usd * Decimal("1.2"))
    await desk.must_tally()


async def test_the_same_lines_again_in_any_order_and_any_chunks_change_nothing(desk: Desk) -> None:
    dice = random.Random(1)
    shard = await desk.send(60)
    lines = [succeeded(number) for number in range(50)]
    lines += [errored(number, "invalid_request_error") for number in range(50, 55)]
    lines += [(number, {"type": "expired"}) for number in range(55, 60)]
    for _ in range(6):
        dice.shuffle(lines)
        cut = dice.randrange(1, 59)
        await desk.settle(shard, lines[:cut])
        await desk.settle(shard, lines[cut:])
        await desk.must_tally()
    assert len(await desk.rows(UsageRecord)) == 50
    (settled,) = await desk.rows(BatchShard)
    assert settled.tallied == {"succeeded": 50, "errored": 5, "expired": 5}
    assert (settled.succeeded, settled.errored, settled.expired) == (50, 5, 0)
    async with desk.ledger.begin() as tx:
        assert await batch_settling.unread(tx, settled) == 0
        progress = await batches.progress(tx, "job", NOW)
    assert (progress.succeeded, progress.errored, progress.waiting) == (50, 5, 5)
    assert progress.batch_saves_usd == progress.charge_usd > 0


async def test_the_cursor_moves_only_from_where_it_stands(desk: Desk) -> None:
    shard = await desk.send(4)
    await desk.settle(shard, [succeeded(0)])
    (after,) = await desk.rows(BatchShard)
    assert (after.lines_read, after.bytes_read > 0) == (1, True)
    await desk.settle(shard, [succeeded(2)], at=after.bytes_read + 7)
    await desk.settle(shard, [succeeded(0)])
    (still,) = await desk.rows(BatchShard)
    assert (still.lines_read, still.bytes_read) == (1, after.bytes_read)
    await desk.settle(shard, [succeeded(1), succeeded(3)], at=after.bytes_read)
    (moved,) = await desk.rows(BatchShard)
    assert moved.lines_read == 3
    await desk.must_tally()


async def test_what_may_still_succeed_is_tried_three_times_and_then_told(desk: Desk) -> None:
    for tried in range(1, 4):
        shard = await desk.send(2, batch_id=f"msgbatch_{tried}")
        assert shard.items == 2
        await desk.settle(shard, [(0, {"type": "expired"}), errored(1, "overloaded_error")])
        async with desk.ledger.begin() as tx:
            await batch_shards.set_settled(tx, shard)
        assert len(await desk.rows(BatchResult)) == (2 if tried == 3 else 0)
    async with desk.ledger.begin() as tx:
        assert await batch_shards.plan(tx, "job", ShardLimits(10, 10**9), NOW) is None
        told = [each async for each in batches.results(tx, "job")]
    assert [each.outcome for each in told] == [ItemOutcome.EXPIRED, ItemOutcome.ERRORED]
    assert (told[1].error_type, told[1].error_message) == ("overloaded_error", "no 1")
    assert [(a.number, a.outcome) for a in await desk.rows(Attempt)] == [
        (number, Outcome.FAILED) for number in (1, 1, 2, 2, 3, 3)
    ]
    assert await desk.rows(UsageRecord) == await desk.rows(MeterEvent) == []


async def test_refusals_without_content_are_answers_and_free(desk: Desk) -> None:
    shard = await desk.send(2)
    number, refused = succeeded(0)
    refused["message"] |= {"stop_reason": "refusal", "content": []}
    await desk.settle(shard, [(number, refused), succeeded(1)])
    free, billed = sorted(await desk.rows(UsageRecord), key=lambda row: row.request_id)
    assert (free.status, free.charge_nano_usd, free.input_tokens) == ("not_billed", 0, 0)
    assert billed.charge_nano_usd > 0
    assert {row.outcome for row in await desk.rows(BatchResult)} == {ItemOutcome.SUCCEEDED}
    await desk.must_tally()


async def test_usage_without_a_price_is_recorded_and_told_to_nobody_yet(desk: Desk) -> None:
    shard = await desk.send(1)
    number, unknown = succeeded(0)
    unknown["message"]["model"] = "claude-unheard-of"
    await desk.settle(shard, [(number, unknown)])
    (record,) = await desk.rows(UsageRecord)
    assert (record.status, record.charge_nano_usd) == ("unpriced", None)
    assert await desk.rows(MeterEvent) == []


async def test_room_is_given_back_as_items_have_their_last_word(desk: Desk) -> None:
    shard = await desk.send(4)
    costs = [item.highest_cost_usd for item in items_of("job", 4)]
    await desk.settle(shard, [succeeded(0), errored(1, "api_error")])
    (kept,) = await desk.rows(Reservation)
    assert RESERVED - kept.amount_nano_usd == to_nano_usd(costs[0] * Decimal("1.2"))
    await desk.settle(shard, [errored(2, "not_found_error"), (3, {"type": "canceled"})])
    (kept,) = await desk.rows(Reservation)
    freed = costs[0] + costs[2] + costs[3]
    assert RESERVED - kept.amount_nano_usd == to_nano_usd(freed * Decimal("1.2"))


async def test_a_batch_that_was_lost_and_found_bills_nobody_twice(desk: Desk) -> None:
    lost = await desk.lose(4)
    second = await desk.send(4, batch_id="msgbatch_2")
    async with desk.ledger.begin() as tx:
        assert await batch_shards.set_running(tx, lost, "msgbatch_1", NOW, NOW)
        await batch_shards.set_ended(tx, lost, ENDED, {})
        found = await batch_shards.get(tx, "job", lost.shard)
    canceled = (3, {"type": "canceled"})
    await desk.settle(found, [succeeded(0), succeeded(1), errored(2, "api_error"), canceled])
    await desk.settle(second, [succeeded(n) for n in (1, 2, 3)] + [(0, {"type": "expired"})])
    await desk.must_tally()
    assert len(await desk.rows(UsageRecord)) == 4
    assert {row.outcome for row in await desk.rows(BatchResult)} == {ItemOutcome.SUCCEEDED}
    # What was served twice is known to have been, by its usage.
    served = Counter(a.request_id for a in await desk.rows(Attempt) if a.usage is not None)
    assert served == {"job/0": 1, "job/1": 2, "job/2": 1, "job/3": 1}
    (doubled,) = [row for row in await desk.rows(UsageRecord) if row.request_id == "job/1"]
    assert doubled.attempts == 2


async def test_a_closed_period_gains_nothing(desk: Desk) -> None:
    async with desk.ledger.begin() as tx:
        await accounts.open_account(tx, "acme", NOW - timedelta(days=31), "UTC", NOW)
        closed = ENDED + timedelta(hours=2)
        await accounts.close_until(tx, "acme", closed)
    shard = await desk.send(1)
    await desk.settle(shard, [succeeded(0)])
    (record,) = await desk.rows(UsageRecord)
    assert (record.served_at, record.billed_at) == (ENDED, closed)
    await desk.must_tally()


async def test_prepaid_credit_is_burnt_with_the_records_in_one_line_each(ledger: Ledger) -> None:
    async with ledger.begin() as tx:
        await customers.add(tx, Customer(customer_id="pre", name="Pre", plan="prepaid"))
        account = await accounts.open_account(tx, "pre", NOW - timedelta(days=1), "UTC", NOW)
        for source, kind in (("a", GrantKind.PROMOTIONAL), ("b", GrantKind.PAID)):
            await wallet.grant(
                tx, account, kind=kind, nano_usd=700_000, source=source, at=NOW - timedelta(days=1)
            )
    desk = Desk(ledger, "pre")
    shard = await desk.send(12)
    lines = [succeeded(number) for number in range(12)]
    await desk.settle(shard, lines[:7])
    await desk.settle(shard, lines)
    charges = {row.usage_record_id: row.charge_nano_usd for row in await desk.rows(UsageRecord)}
    burnt, entries = Counter[int](), Counter[int]()
    for entry in await desk.rows(WalletEntry):
        if entry.kind == EntryKind.USAGE:
            burnt[entry.usage_record_id] -= entry.amount_nano_usd
            entries[entry.usage_record_id] += 1
    assert burnt == charges
    assert sorted(entries.values())[-2:] == [2, 2], "two records lie across the end of a grant"
    assert sum(charges.values()) > 1_400_000, "the credit does not last"
    async with ledger.begin() as tx:
        assert await wallet.balance(tx, "pre", ENDED) == 1_400_000 - sum(charges.values())
    await desk.must_tally()
