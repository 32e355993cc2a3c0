"""Which hours a run lays side by side: closed ones, from the instant it was scheduled for.

Not from the instant it runs: a run that was held up by an outage, or is made up for a day later,
looks at the hours that it was meant for. Hours overlap from run to run, since every comparison may
be repeated; what a day's run could not compare, because the provider's reports were late, is part
of the next day's.
"""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from tallystick.contracts import ReconcileOrder

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LOOK_BACK = 12 * HOUR
"""What an hourly run looks at: reports are some minutes late, meter events may be hours."""
LATE_DAYS = 7
"""How many days before its own a daily run makes up for at the most."""
LONGEST = 31 * DAY
"""What Anthropic's usage report tells of at a time (facts on Claude, 'Usage and cost reports')."""


class Interval(NamedTuple):
    """Whole hours: from `start` on, until before `end`."""

    start: datetime
    end: datetime


def interval_of(
    order: ReconcileOrder,
    *,
    scheduled_at: datetime | None,
    now: datetime,
    compared_until: datetime | None,
) -> Interval:
    """Return the hours of a run.

    Args:
        order: what was asked for.
        scheduled_at: the instant that a schedule started it for.
        now: when it runs.
        compared_until: until when earlier daily runs have compared all there is; None where there
            was none.

    Raises:
        ValueError: in one line that names the field and says which hours can be had.
    """
    at = (scheduled_at or now).astimezone(UTC)
    if order.start is not None and order.end is not None:
        return _checked(Interval(order.start.astimezone(UTC), order.end.astimezone(UTC)), now)
    if order.start is not None or order.end is not None:
        given, missing = ("start", "end") if order.end is None else ("end", "start")
        raise ValueError(f"{missing}: is missing while {given} is given; give both, or neither")
    if order.kind == "daily":
        end = at.replace(hour=0, minute=0, second=0, microsecond=0)
        late = end - DAY if compared_until is None else compared_until
        return Interval(min(end - DAY, max(late, end - (1 + LATE_DAYS) * DAY)), end)
    end = whole_hour(at)
    return Interval(end - LOOK_BACK, end)


def whole_hour(at: datetime) -> datetime:
    """Return the beginning of the hour, in UTC."""
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _checked(asked: Interval, now: datetime) -> Interval:
    for name, at in (("start", asked.start), ("end", asked.end)):
        if at != whole_hour(at):
            raise ValueError(
                f"{name}: {at:%Y-%m-%d %H:%M:%S} UTC is not on a whole hour; records are compared "
                "by the hour"
            )
    if asked.end <= asked.start:
        raise ValueError(f"end: {asked.end:%Y-%m-%d %H:%M} UTC is not after the start")
    if asked.end > now:
        raise ValueError(
            f"end: the hours until {asked.end:%Y-%m-%d %H:%M} UTC are not over yet; the last one "
            f"that is ended at {whole_hour(now):%Y-%m-%d %H:%M} UTC"
        )
    if asked.end - asked.start > LONGEST:
        raise ValueError(
            f"start: {asked.start:%Y-%m-%d %H:%M} UTC is more than {LONGEST.days} days before the "
            "end; compare them month by month"
        )
    return asked
