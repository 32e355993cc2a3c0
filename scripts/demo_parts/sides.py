"""Fetches the three records of a run, each from its own keeper.

Claude's is the stand-in's journal, which knows what was served whatever became of the answer. The
real service has no such journal within the minute (its usage report comes later, and reconciliation
reads it), so there the raw usage objects of the replies speak for it. The ledger's are its usage
records. Stripe's are the event summaries of the official API: what counts, not what was received.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from activities.stripe_summaries import MeterSummaries
from tallystick.ledger import reports, waiting
from tallystick.ledger.database import Ledger
from tallystick.metering import CHARGE_METER, token_meter
from tallystick.money import from_nano_usd
from tallystick.pricing import TokenCounts, rate

from .tally import CHARGE, COST, KINDS, Figures, Lost, Pair, add_up, amount, tokens

Record = Mapping[str, Any]
_MINUTE = timedelta(minutes=1)


async def usage_records(ledger: Ledger) -> list[Record]:
    """Return every usage record with its meter events; a demo's ledger holds its run alone."""
    async with ledger.begin() as tx:
        return [record async for record in reports.records(tx)]


async def unknown_outcomes(ledger: Ledger) -> int:
    """Return how many calls ended, or seem to go on, without a known outcome."""
    async with ledger.begin() as tx:
        open_ = await waiting.waiting(tx, older_than=datetime.now(UTC))
    return sum(each.what in ("outcome unknown", "in flight") for each in open_)


def is_metered(record: Record) -> bool:
    """Tell whether Stripe has acknowledged all that the record left in the outbox."""
    return all(event["delivered_at"] for event in record["meter_events"])


def ledger_figures(records: Sequence[Record]) -> Figures:
    """Add up the usage records."""
    return add_up(pair for record in records for pair in _record_pairs(record))


def _record_pairs(record: Record) -> Iterable[Pair]:
    customer = record["customer_id"]
    for kind in KINDS:
        yield (customer, kind), record[f"{kind}_tokens"]
    yield (customer, COST), record["cost_usd"] or 0
    yield (customer, CHARGE), from_nano_usd(record["charge_nano_usd"] or 0)


def claude_figures(
    journal: Sequence[Record], records: Sequence[Record], unknown: int
) -> tuple[Figures, Lost]:
    """Add up what Claude served: the calls that answered a request, and those that were lost.

    A row belongs to the request whose record has its message id. Tokens are the stand-in's own
    count of what it bills, so a mistake in reading usage objects would show.
    """
    owners = {record["message_id"]: record["customer_id"] for record in records}
    lost = [row for row in journal if row["message_id"] not in owners]
    lost_figures = add_up(pair for row in lost for pair in _row_pairs("", row))
    return (
        add_up(
            pair
            for row in journal
            if row["message_id"] in owners
            for pair in _row_pairs(owners[row["message_id"]], row)
        ),
        Lost(unknown, len(lost), tokens(lost_figures), amount(lost_figures, COST)),
    )


def _row_pairs(customer: str, row: Record) -> Iterable[Pair]:
    billable = row["billable"]
    for kind in KINDS:
        yield (customer, kind), billable[kind]
    if any(billable.values()):
        message = {name: row[name] for name in ("model", "usage", "stop_reason")}
        served_at = datetime.fromtimestamp(row["served_at"], UTC)
        # The journal keeps no content; that something was billed proves that there was some.
        rating = rate(message | {"content": [{"type": "text"}]}, at=served_at)
        yield (customer, COST), rating.cost_usd or 0


def figures_of_replies(records: Sequence[Record]) -> Figures:
    """Add up the usage objects of the replies, as Claude wrote them."""
    return add_up(pair for record in records for pair in _reply_pairs(record))


def _reply_pairs(record: Record) -> Iterable[Pair]:
    rating = rate(record["evidence"], at=record["served_at"])
    billed = TokenCounts() if rating.status == "not_billed" else rating.tokens
    for kind, count in billed.by_kind().items():
        yield (record["customer_id"], kind.value), count
    yield (record["customer_id"], COST), rating.cost_usd or 0


async def stripe_figures(
    summaries: MeterSummaries, customers: Mapping[str, str], since: datetime
) -> Figures:
    """Ask Stripe what counts for each customer (our id to Stripe's) since `since`."""
    start = since.replace(second=0, microsecond=0)
    end = datetime.now(UTC).replace(second=0, microsecond=0) + _MINUTE
    asked = [
        (customer, stripe_id, kind)
        for customer, stripe_id in customers.items()
        for kind in (*KINDS, CHARGE)
    ]
    answers = [
        await summaries.total(
            stripe_id, CHARGE_METER if kind == CHARGE else token_meter(kind), start, end
        )
        for _, stripe_id, kind in asked
    ]
    return {
        (customer, kind): from_nano_usd(answer) if kind == CHARGE else Decimal(answer)
        for (customer, _, kind), answer in zip(asked, answers, strict=True)
    }


async def settled_stripe_figures(
    summaries: MeterSummaries,
    customers: Mapping[str, str],
    since: datetime,
    expected: Figures,
    *,
    patience: float,
) -> Figures:
    """Ask until Stripe agrees with `expected` or `patience` seconds have passed.

    Summaries are eventually consistent and carry no word on how fresh they are (facts on Stripe,
    'Meters'), so a difference means something only when it stays.
    """
    deadline = asyncio.get_running_loop().time() + patience
    pause = 1.0
    while True:
        figures = await stripe_figures(summaries, customers, since)
        agree = all(value == expected.get(key, 0) for key, value in figures.items())
        if agree or asyncio.get_running_loop().time() > deadline:
            return figures
        await asyncio.sleep(pause)
        pause = min(pause * 2, 15)
