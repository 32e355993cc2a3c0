"""What was sent to Stripe's meters, added up as Stripe adds it up.

One scan of an interval's events brings back a line for each customer and meter, its hours packed:
a day of a million records is some thousands of lines, and no memory worth the name. What Stripe has
acknowledged counts, also where a statement has come to collect it; what was withdrawn before that
never counts; and what is not acknowledged may.
"""

from array import array
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import TextClause, text

from tallystick.ledger.database import Transaction
from tallystick.metering import CHARGE_METER, UNITS
from tallystick.reconciling.findings import MOST_REQUESTS
from tallystick.reconciling.stuck_events import WaitingHour


@dataclass(frozen=True, slots=True)
class MeterHours:
    """One customer's events on one meter, hour by hour; the last three go together.

    `hours` are Unix seconds, `sent` is what Stripe has acknowledged, and `fresh` says whether some
    of it was sent so lately that Stripe's sums may not show it yet. Only what was ever sent is
    here; of several Stripe customers, an hour comes once for each.
    """

    customer_id: str
    stripe_customer_ids: tuple[str, ...]
    meter: str
    hours: Sequence[int]
    sent: Sequence[int]
    fresh: Sequence[int]


def _whole(hours: str) -> str:
    return f"date_bin('{hours}', occurred_at, TIMESTAMPTZ '2000-01-01 00:00Z')"


_SENT_BY_HOUR = text(f"""
WITH by_hour AS (
    SELECT customer_id, stripe_customer_id, meter, {_whole("1 hour")} AS hour,
        coalesce(sum(value) FILTER (WHERE delivered_at IS NOT NULL), 0)::bigint AS sent,
        bool_or(coalesce(delivered_at, first_sent_at) > :fresh_since) AS fresh
    FROM meter_events
    WHERE occurred_at >= :start AND occurred_at < :end AND first_sent_at IS NOT NULL
    GROUP BY 1, 2, 3, 4
)
SELECT customer_id, meter, array_agg(DISTINCT stripe_customer_id) AS stripe_customer_ids,
    array_agg(extract(epoch FROM hour)::bigint ORDER BY hour) AS hours,
    array_agg(sent ORDER BY hour) AS sent, array_agg(fresh::int ORDER BY hour) AS fresh
FROM by_hour
GROUP BY customer_id, meter
""")  # noqa: S608 - of constants


_ROOM = text("SET LOCAL work_mem = '64MB'")
"""For the sums of 2,000 customers' day, which are then kept and not sorted on disk."""


async def sent_by_hour(
    tx: Transaction, start: datetime, end: datetime, *, fresh_since: datetime
) -> AsyncGenerator[MeterHours, None]:
    """Yield, streamed and in no order, what was sent of [start, end), both whole hours."""
    await tx.execute(_ROOM)
    span = {"start": start, "end": end, "fresh_since": fresh_since}
    async for row in await tx.stream(_SENT_BY_HOUR, span):
        yield MeterHours(
            customer_id=row.customer_id,
            stripe_customer_ids=tuple(row.stripe_customer_ids),
            meter=row.meter,
            hours=array("q", row.hours),
            sent=array("q", row.sent),
            fresh=bytes(row.fresh),
        )


_SENT_BY_MINUTE = text(f"""
SELECT {_whole("1 minute")} AS minute, sum(value)::bigint AS sent
FROM meter_events
WHERE customer_id = :customer_id AND meter = :meter AND occurred_at >= :start
    AND occurred_at < :end AND delivered_at IS NOT NULL
GROUP BY 1
""")  # noqa: S608


async def sent_by_minute(
    tx: Transaction, customer_id: str, meter: str, start: datetime, end: datetime
) -> list[int]:
    """Return what Stripe has acknowledged in each minute of [start, end), both whole minutes."""
    place = {"customer_id": customer_id, "meter": meter, "start": start, "end": end}
    minute = timedelta(minutes=1)
    sums = [0] * ((end - start) // minute)
    for row in await tx.execute(_SENT_BY_MINUTE, place):
        sums[(row.minute - start) // minute] = row.sent
    return sums


class UnitHour(NamedTuple):
    """What all customers together have of a unit in an hour."""

    hour: datetime
    unit: str
    value: int


_TO_TELL_BY_HOUR = text(f"""
SELECT {_whole("1 hour")} AS hour, meter, sum(value)::bigint AS value
FROM meter_events
WHERE occurred_at >= :start AND occurred_at < :end
    AND (withdrawn_at IS NULL OR delivered_at IS NOT NULL)
GROUP BY 1, 2
""")  # noqa: S608


async def to_tell_by_hour(tx: Transaction, start: datetime, end: datetime) -> list[UnitHour]:
    """Return what Stripe is to be told of each hour in [start, end), delivered yet or not."""
    rows = await tx.execute(_TO_TELL_BY_HOUR, {"start": start, "end": end})
    return [UnitHour(row.hour, UNITS[row.meter], row.value) for row in rows if row.meter in UNITS]


# --- What waits -----------------------------------------------------------------------------------
# Billed later than used is what was late for its period; it waits until that period's invoice is
# final (`activities.meter_windows`).
_WAITING: TextClause = text(f"""
SELECT e.customer_id, e.meter, {_whole("1 hour")} AS hour, count(*) AS events,
    sum(e.value)::bigint AS value,
    array_remove(array_agg(DISTINCT e.parked_reason), NULL) AS why,
    bool_or(rejected.first IS NOT NULL) AS rejected,
    coalesce(
        bool_and(
            e.parked_at IS NULL AND e.billed_at > e.occurred_at
                AND a.invoiced_until <= e.occurred_at AND e.occurred_at < a.closed_until
        ),
        false
    ) AS held,
    to_jsonb((array_agg(
        jsonb_build_object(
            'customer_id', e.customer_id, 'request_id', e.request_id, 'identifier', e.identifier,
            'value', e.value,
            'at', to_char(e.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')
        ) ORDER BY e.meter_event_id
    ))[1:{MOST_REQUESTS}]) AS requests
FROM meter_events e
LEFT JOIN billing_accounts a ON a.customer_id = e.customer_id AND e.meter = '{CHARGE_METER}'
LEFT JOIN (
    SELECT DISTINCT split_part(identifier, '#r', 1) AS first FROM meter_rejections
) rejected ON rejected.first = split_part(e.identifier, '#r', 1)
WHERE e.occurred_at >= :start AND e.occurred_at < :end AND e.delivered_at IS NULL
    AND e.withdrawn_at IS NULL AND greatest(e.occurred_at, e.billed_at) < :since
GROUP BY 1, 2, 3
""")  # noqa: S608


async def waiting(
    tx: Transaction, start: datetime, end: datetime, *, since: datetime
) -> AsyncGenerator[WaitingHour, None]:
    """Yield what of [start, end) Stripe has not acknowledged and was there before `since`."""
    span: dict[str, Any] = {"start": start, "end": end, "since": since}
    async for row in await tx.stream(_WAITING, span):
        yield WaitingHour(*row)
