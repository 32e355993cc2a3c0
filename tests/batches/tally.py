"""The tally of batch jobs: the stand-in's journal, the ledger and Stripe, item by item and in sums.

An item that was served is known by its batch and its `custom_id`: it is some attempt, and that of
one record, which has its tokens. What was served twice has two attempts that say so and one record.
"""

from collections import Counter, defaultdict
from typing import Any

from sqlalchemy import select
from sqlmodel import col

from tallystick.ledger.batch_tables import BatchItem, BatchJob, BatchResult, BatchShard, BatchTry
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Attempt, Customer, MeterEvent, UsageRecord
from tallystick.metering import CHARGE_METER, TOKEN_KINDS, token_meter
from tallystick.plans.batching import shard_mark
from tallystick.sandbox.remote import Control

Row = dict[str, Any]

_RECORD = (
    UsageRecord.attempt_id,
    UsageRecord.customer_id,
    UsageRecord.message_id,
    UsageRecord.charge_nano_usd,
    *(getattr(UsageRecord, f"{kind}_tokens") for kind in TOKEN_KINDS),
)
_EVENT = (
    MeterEvent.usage_record_id,
    MeterEvent.customer_id,
    MeterEvent.meter,
    MeterEvent.value,
    MeterEvent.delivered_at,
)


async def differences(ledger: Ledger, claude: Control, stripe: Control) -> list[str]:
    """Return every disagreement about the batch jobs of a ledger, in words."""
    async with ledger.begin() as tx:

        async def rows(*columns: Any) -> list[Row]:
            return [dict(row._mapping) for row in await tx.execute(select(*map(col, columns)))]

        attempts = {
            row["attempt_id"]: row
            for row in await rows(Attempt.attempt_id, Attempt.outcome, Attempt.message_id)
        }
        tries = await rows(BatchTry.job_id, BatchTry.number, BatchTry.shard, BatchTry.attempt_id)
        shards = {
            (row["job_id"], row["shard"]): row
            for row in await rows(BatchShard.job_id, BatchShard.shard, BatchShard.batch_id)
        }
        items = [
            (row["job_id"], row["number"]) for row in await rows(BatchItem.job_id, BatchItem.number)
        ]
        results = {
            (row["job_id"], row["number"]): row["outcome"]
            for row in await rows(BatchResult.job_id, BatchResult.number, BatchResult.outcome)
        }
        records = {row["attempt_id"]: row for row in await rows(*_RECORD)}
        jobs = await rows(BatchJob.job_id, BatchJob.finished_at)
        finished = {row["job_id"] for row in jobs if row["finished_at"]}
        events = [row for row in await rows(*_EVENT) if row["usage_record_id"] is None]
        mapped = {
            row["customer_id"]: row["stripe_customer_id"]
            for row in await rows(Customer.customer_id, Customer.stripe_customer_id)
        }
    served = {
        (row["batch_id"], row["custom_id"]): row
        for row in await claude.journal()
        if row.get("batch_id") and not row["custom_id"].startswith("theirs-")
    }
    found: list[str] = []
    billed = Counter[tuple[str, int]]()
    answered: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    known: set[tuple[str, str]] = set()
    for each in tries:
        job, number, shard = each["job_id"], each["number"], shards[each["job_id"], each["shard"]]
        attempt, name = attempts[each["attempt_id"]], f"{shard_mark(job, each['shard'])}{number}"
        call = served.get((shard["batch_id"], name))
        record = records.get(each["attempt_id"])
        known.add((shard["batch_id"], name))
        found += _disagree(name, attempt, call, record)
        if call is not None:
            answered[job, number].append(each["attempt_id"])
            billed[job, number] += record is not None
    found += [
        f"{item}: answered, and billed {billed[item]} times"
        for item in answered
        if billed[item] != 1
    ]
    # What was refused at admission, or is still under way, has no last words.
    told = {item: results.get(item) for item in items if item[0] in finished}
    found += [
        f"{item}: {outcome}, answered {len(answered[item])} times"
        for item, outcome in told.items()
        if outcome is None or (outcome == "succeeded") != bool(answered[item])
    ]
    stray = served.keys() - known
    found += [f"{len(stray)} served items are nobody's"] if stray else []
    found += _sums(records, events, await stripe.journal(), mapped)
    return found


def _disagree(name: str, attempt: Row, call: Row | None, record: Row | None) -> list[str]:
    """Compare what is known of one try: the attempt, the stand-in's row, the record."""
    if attempt["outcome"] == "started":
        return [f"{name}: the attempt has no outcome"]
    if (attempt["outcome"] == "succeeded") != (call is not None):
        return [f"{name}: {attempt['outcome']}, served: {call is not None}"]
    if call is None:
        return [f"{name}: billed, and not served"] if record else []
    found = [] if attempt["message_id"] == call["message_id"] else [f"{name}: another message"]
    if record is None:
        return found
    if record["message_id"] != call["message_id"]:
        found.append(f"{name}: bills another message")
    return found + [
        f"{name}: {record[f'{kind}_tokens']} {kind} tokens billed, {call['billable'][kind]} served"
        for kind in TOKEN_KINDS
        if record[f"{kind}_tokens"] != call["billable"][kind]
    ]


def _sums(
    records: dict[int, Row], events: list[Row], accepted: list[Row], mapped: dict[str, str | None]
) -> list[str]:
    due, queued, told = (Counter[tuple[str | None, str]]() for _ in range(3))
    for record in records.values():
        if record["charge_nano_usd"] is None:
            continue  # told when it has a price
        customer = mapped[record["customer_id"]]
        due[customer, CHARGE_METER] += record["charge_nano_usd"]
        for kind in TOKEN_KINDS:
            due[customer, token_meter(kind)] += record[f"{kind}_tokens"]
    for event in events:
        queued[mapped[event["customer_id"]], event["meter"]] += event["value"]
    for entry in accepted:
        if entry["effective"]:
            told[entry["customer"], entry["event_name"]] += int(entry["value"])
    undelivered = sum(event["delivered_at"] is None for event in events)
    return [
        f"{meter} of {customer}: {due[customer, meter]} in the records, "
        f"{queued[customer, meter]} in the outbox, {told[customer, meter]} at Stripe"
        for customer, meter in due | queued | told
        if not due[customer, meter] == queued[customer, meter] == told[customer, meter]
    ] + ([f"{undelivered} events are not delivered"] if undelivered else [])
