"""Usage records laid beside the meter events that they have to leave, all of an interval at once.

What a record owes the meters is its charge and its tokens; of one that had no price, those that its
first adjustment brought (`ledger.adjustments`). Later corrections move no meter. Records of a batch
owe together what the chunks of their shard say: a chunk names its records in the last words of
their items, save where an item that was served twice has its last word from the other one, so the
shard's sum decides whether something is wrong and the chunks say where.

Only what does not fit comes back. A million records are one join of two scans.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Row, text

from tallystick.ledger import batches
from tallystick.ledger.database import Transaction
from tallystick.ledger.outbox_sums import UnitHour
from tallystick.metering import CHARGE_METER, METERS, UNITS
from tallystick.reconciling.record_events import RecordGap

_METERS = tuple(METERS)


def _each(expression: str, join: str = ", ") -> str:
    """Write an expression for every meter: `{n}` is its number, `{column}` what it is told of."""
    columns = (UNITS[m] if m == CHARGE_METER else f"{UNITS[m]}_tokens" for m in _METERS)
    return join.join(
        expression.format(n=n, meter=meter, column=column)
        for n, (meter, column) in enumerate(zip(_METERS, columns, strict=True))
    )


_FIRST_PRICES = """
    SELECT DISTINCT ON (usage_record_id) a.*
    FROM adjustments a JOIN usage_records u USING (usage_record_id)
    WHERE u.served_at >= :start AND u.served_at < :end AND u.charge_nano_usd IS NULL
    ORDER BY usage_record_id, adjustment_id
"""

# --- Records by themselves ------------------------------------------------------------------------
_RECORDS = text(f"""
WITH owed AS (
    SELECT r.usage_record_id, coalesce(f.billed_at, r.billed_at) AS billed_at,
        {_each("coalesce(r.{column} + coalesce(f.{column}, 0), f.{column}) AS owed_{n}")}
    FROM usage_records r LEFT JOIN ({_FIRST_PRICES}) f USING (usage_record_id)
    WHERE r.served_at >= :start AND r.served_at < :end
        AND (
            f.charge_nano_usd IS NOT NULL
            OR r.charge_nano_usd IS NOT NULL
                AND NOT EXISTS (SELECT FROM batch_tries t WHERE t.attempt_id = r.attempt_id)
        )
), told AS (
    SELECT usage_record_id,
        {_each("sum(value) FILTER (WHERE meter = '{meter}')::bigint AS told_{n}")}
    FROM meter_events
    WHERE occurred_at >= :start AND occurred_at < :end AND usage_record_id IS NOT NULL
    GROUP BY usage_record_id
), differing AS (
    SELECT * FROM owed FULL JOIN told USING (usage_record_id)
    WHERE {_each("coalesce(owed_{n}, 0) <> coalesce(told_{n}, 0)", " OR ")}
)
SELECT d.*, r.customer_id, r.request_id, r.served_at, coalesce(d.billed_at, r.billed_at) AS billed
FROM differing d CROSS JOIN LATERAL (
    SELECT * FROM usage_records WHERE usage_record_id = d.usage_record_id
    LIMIT 1  -- keeps the lookup from becoming a scan
) r
""")  # noqa: S608 - of names from the code alone


async def of_records(
    tx: Transaction, start: datetime, end: datetime
) -> AsyncGenerator[RecordGap, None]:
    """Yield where records served in [start, end) have left other events than they owe."""
    async for row in await tx.stream(_RECORDS, {"start": start, "end": end}):
        values = row._mapping  # pyright: ignore[reportPrivateUsage]
        for n, meter in enumerate(_METERS):
            owed, told = values[f"owed_{n}"] or 0, values[f"told_{n}"]
            if owed != (told or 0):
                yield RecordGap(
                    customer_id=row.customer_id,
                    request_id=row.request_id,
                    usage_record_id=row.usage_record_id,
                    meter=meter,
                    owed=owed,
                    told=told,
                    occurred_at=row.served_at,
                    billed_at=row.billed,
                )


# --- Records of batches, by shard -----------------------------------------------------------------
_SHARDS = text(f"""
SELECT s.job_id, s.shard, s.chunks, s.ended_at, j.customer_id, b.metered_as,
    min(r.billed_at) AS billed_at,
    {_each("coalesce(sum(r.{column}), 0)::bigint AS owed_{n}")}
FROM batch_shards s
JOIN batch_jobs j USING (job_id)
LEFT JOIN (batch_tries t JOIN usage_records r ON r.attempt_id = t.attempt_id)
    ON t.job_id = s.job_id AND t.shard = s.shard AND r.charge_nano_usd IS NOT NULL
LEFT JOIN batch_results b
    ON b.job_id = t.job_id AND b.number = t.number AND b.attempt_id = t.attempt_id
WHERE s.ended_at >= :start AND s.ended_at < :end
GROUP BY s.job_id, s.shard, s.chunks, s.ended_at, j.customer_id, b.metered_as
""")  # noqa: S608

_WITHOUT_RECORD = text("""
SELECT customer_id, request_id, meter, value, occurred_at, billed_at
FROM meter_events
WHERE occurred_at >= :start AND occurred_at < :end AND usage_record_id IS NULL
""")

_Sums = dict[tuple[str, str], int]
"""By chunk, the request id of its events, and meter."""


@dataclass(slots=True)
class _Shard:
    """What the records of a shard owe the meters, and what its chunks have told them.

    Of records that no chunk names, the chunk is ''.
    """

    customer_id: str
    ended_at: datetime
    chunks: list[str]
    billed_at: datetime | None = None
    owed: _Sums = field(default_factory=dict[tuple[str, str], int])
    told: _Sums = field(default_factory=dict[tuple[str, str], int])

    def gaps(self, meter: str) -> list[RecordGap]:
        """Return what is wrong on a meter: chunks whose event is missing, or else the shard."""
        owed = {chunk: value for (chunk, m), value in self.owed.items() if m == meter and value}
        told = {chunk: value for (chunk, m), value in self.told.items() if m == meter}
        difference = sum(owed.values()) - sum(told.values())
        if not difference:
            return []
        missing = sorted(owed.keys() - told.keys() - {""})
        if difference == sum(owed[chunk] for chunk in missing):
            return [self._gap(chunk, meter, owed[chunk], None) for chunk in missing]
        return [self._gap(self.chunks[0], meter, sum(owed.values()), sum(told.values()))]

    def _gap(self, chunk: str, meter: str, owed: int, told: int | None) -> RecordGap:
        return RecordGap(
            customer_id=self.customer_id,
            request_id=chunk,
            usage_record_id=None,
            meter=meter,
            owed=owed,
            told=told,
            occurred_at=self.ended_at,
            billed_at=self.billed_at or self.ended_at,
        )


async def of_batches(tx: Transaction, start: datetime, end: datetime) -> list[RecordGap]:
    """Return where batches that ended in [start, end) have left other events than they owe, and
    events that stand for no record at all."""
    span = {"start": start, "end": end}
    shards: dict[tuple[str, int], _Shard] = {}
    of_chunk: dict[tuple[str, str], _Shard] = {}
    for row in await tx.execute(_SHARDS, span):
        shard = shards.get((row.job_id, row.shard))
        if shard is None:
            numbers = range(1, max(row.chunks, 1) + 1)
            chunks = [batches.chunk_id(row.job_id, row.shard, number) for number in numbers]
            shard = shards[row.job_id, row.shard] = _Shard(row.customer_id, row.ended_at, chunks)
            of_chunk |= {(row.customer_id, chunk): shard for chunk in chunks}
        shard.billed_at = row.billed_at or shard.billed_at
        values: Any = row._mapping  # pyright: ignore[reportPrivateUsage]
        for n, meter in enumerate(_METERS):
            shard.owed[row.metered_as or "", meter] = values[f"owed_{n}"]
    strays: list[RecordGap] = []
    for event in await tx.execute(_WITHOUT_RECORD, span):
        shard = of_chunk.get((event.customer_id, event.request_id))
        if shard is None:
            strays.append(_stray(event))
        else:
            shard.told[event.request_id, event.meter] = event.value
    return [*(gap for shard in shards.values() for m in _METERS for gap in shard.gaps(m)), *strays]


def _stray(event: Row[Any]) -> RecordGap:
    return RecordGap(
        customer_id=event.customer_id,
        request_id=event.request_id,
        usage_record_id=None,
        meter=event.meter,
        owed=0,
        told=event.value,
        occurred_at=event.occurred_at,
        billed_at=event.billed_at,
    )


# --- Sums -----------------------------------------------------------------------------------------
_CHARGED = text(f"""
SELECT date_bin('1 hour', r.served_at, TIMESTAMPTZ '2000-01-01 00:00Z') AS hour,
    sum(coalesce(r.charge_nano_usd, f.charge_nano_usd))::bigint AS charged
FROM usage_records r LEFT JOIN ({_FIRST_PRICES}) f USING (usage_record_id)
WHERE r.served_at >= :start AND r.served_at < :end
GROUP BY 1
""")  # noqa: S608


async def charged_by_hour(tx: Transaction, start: datetime, end: datetime) -> list[UnitHour]:
    """Return what was charged for each hour in [start, end) at its first price, as metered."""
    rows = await tx.execute(_CHARGED, {"start": start, "end": end})
    return [UnitHour(row.hour, UNITS[CHARGE_METER], row.charged or 0) for row in rows]
