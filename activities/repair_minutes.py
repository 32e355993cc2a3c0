"""The minute of an event, on both sides: what Stripe misses of it, or has too much.

Summaries know whole minutes and nothing smaller (facts on Stripe, 'Meters'), so a repair looks at
the minute before it acts, and acts only where what it would add or take away is really missing or
too much. An effect that somebody else has made, or the repair itself before a crash, shows here as
nothing left to do.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from activities.repair_calls import RepairCalls
from activities.repairing import Done, Later, Refused
from tallystick.ledger import outbox
from tallystick.ledger.database import Ledger

_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class MeterMinute:
    """The minute around an instant, of one Stripe customer on one meter."""

    stripe_customer_id: str
    meter: str
    at: datetime

    @property
    def start(self) -> datetime:
        """When it begins."""
        return self.at.replace(second=0, microsecond=0)


async def trouble_adding(
    ledger: Ledger, calls: RepairCalls, minute: MeterMinute, value: int
) -> Done | Refused | Later | None:
    """Tell why `value`, negative to take away, must not be added to what Stripe counts; else None.

    Done says that Stripe counts the minute right without it.
    """
    async with ledger.begin() as tx:
        known = await outbox.sums_in_window(
            tx,
            stripe_customer_id=minute.stripe_customer_id,
            meter=minute.meter,
            start=minute.start,
            end=minute.start + _MINUTE,
        )
    if known.undelivered:
        return Later("other events of its minute are on their way to Stripe")
    counted = await calls.counted(minute.stripe_customer_id, minute.meter, minute.start)
    if not isinstance(counted, int):
        return counted
    missing = known.delivered - counted
    if missing == 0:
        return Done("Stripe counts its minute as it was sent")
    if (missing > 0) != (value > 0) or abs(missing) < abs(value):
        return Refused(
            f"Stripe counts {counted:,} of its minute and was sent {known.delivered:,}: "
            f"{value:+,} would not make that right"
        )
    return None
