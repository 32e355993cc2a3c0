"""Meter events that Stripe has not acknowledged for too long.

Nobody knows what Stripe counts of them, so no sum is said to differ for them; they are told by
themselves, by the hour, since in an outage all events wait. They need no repair: the outbox
delivers them as soon as what keeps them is gone, and `tallystick stuck` says what that is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tallystick.metering import UNITS
from tallystick.reconciling.findings import Cause, Finding, Kind, Pair
from tallystick.reconciling.meter_minutes import HOUR, place_of, quantity, tokens_of, usd_of

STUCK_AFTER = timedelta(hours=1)
"""What passes by itself has passed by then."""


@dataclass(frozen=True, slots=True)
class WaitingHour:
    """The events of one customer's hour on one meter that have waited too long.

    `why` is what they are parked for. `rejected` says that Stripe took one of them and rejected it
    later, `held` that all wait for an invoice to become final, as they have to.
    """

    customer_id: str
    meter: str
    hour: datetime
    events: int
    value: int
    why: Sequence[str]
    rejected: bool
    held: bool
    requests: Sequence[Mapping[str, Any]]


def judge_waiting(hours: Sequence[WaitingHour]) -> list[Finding]:
    """Return a finding for each of them."""
    return [_finding(each) for each in hours]


def _finding(each: WaitingHour) -> Finding:
    if each.held:
        why = "They are billed later than their period, whose invoice is not final yet."
    else:
        why = "; ".join(sorted(each.why)) or "They are tried again and again."
    events = "an event" if each.events == 1 else f"{each.events:,} events"
    return Finding(
        pair=Pair.OUTBOX_STRIPE,
        kind=Kind.NOT_DELIVERED,
        start=each.hour,
        end=each.hour + HOUR,
        place=place_of(each.customer_id, each.meter),
        amounts={UNITS[each.meter]: {"outbox": each.value, "stripe": 0}},
        tokens=tokens_of(each.meter, each.value),
        usd=usd_of(each.meter, -each.value),
        cause=Cause.REJECTED_LATER if each.rejected else Cause.STUCK_METERING,
        words=f"Stripe has not acknowledged {events} of {each.customer_id}, "
        f"{quantity(each.meter, each.value)}. {why}",
        requests=each.requests,
        explained=each.held,
    )
