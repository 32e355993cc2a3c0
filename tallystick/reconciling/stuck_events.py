"""Meter events that Stripe has not acknowledged for too long.

Nobody knows what Stripe counts of them, so no sum is said to differ for them; they are told by
themselves. They need no repair: the outbox delivers them as soon as what keeps them is gone, and
`tallystick stuck` says what that is.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tallystick.metering import UNITS
from tallystick.reconciling.findings import MOST_REQUESTS, Cause, Finding, Kind, Pair
from tallystick.reconciling.meter_minutes import (
    MINUTE,
    place_of,
    quantity,
    request_facts,
    tokens_of,
    usd_of,
)

STUCK_AFTER = timedelta(hours=1)
"""What passes by itself has passed by then; nothing else would tell of an hour without metering."""


@dataclass(frozen=True, slots=True)
class WaitingEvent:
    """A meter event that Stripe has not acknowledged for too long.

    `why` is what it is parked for. `rejected` says that Stripe took it once and rejected it later,
    `held` that it waits for an invoice to become final, as it has to.
    """

    customer_id: str
    request_id: str
    identifier: str
    meter: str
    value: int
    occurred_at: datetime
    why: str | None
    rejected: bool
    held: bool


def judge_waiting(events: Sequence[WaitingEvent]) -> list[Finding]:
    """Return a finding for each minute with events that are stuck."""
    places: defaultdict[tuple[str, str, datetime], list[WaitingEvent]] = defaultdict(list)
    for event in events:
        minute = event.occurred_at.replace(second=0, microsecond=0)
        places[event.customer_id, event.meter, minute].append(event)
    return [_stuck(*place, waiting) for place, waiting in places.items()]


def _stuck(customer_id: str, meter: str, at: datetime, events: Sequence[WaitingEvent]) -> Finding:
    value = sum(event.value for event in events)
    reasons = dict.fromkeys(event.why for event in events if event.why)
    held = all(event.held for event in events)
    rejected = any(event.rejected for event in events)
    if held:
        why = "They are billed later than their period, whose invoice is not final yet."
    else:
        why = "; ".join(reasons) or "They are tried again and again."
    return Finding(
        pair=Pair.OUTBOX_STRIPE,
        kind=Kind.NOT_DELIVERED,
        start=at,
        end=at + MINUTE,
        place=place_of(customer_id, meter),
        amounts={UNITS[meter]: {"outbox": value, "stripe": 0}},
        tokens=tokens_of(meter, value),
        usd=usd_of(meter, -value),
        cause=Cause.REJECTED_LATER if rejected else Cause.STUCK_METERING,
        words=f"Stripe has not acknowledged {quantity(meter, value)} of {customer_id}. {why}",
        requests=[
            request_facts(
                customer_id, event.request_id, event.identifier, event.value, event.occurred_at
            )
            for event in events[:MOST_REQUESTS]
        ],
        explained=held,
    )
