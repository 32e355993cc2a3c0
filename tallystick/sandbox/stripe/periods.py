"""Billing periods in UTC, counted from an anchor and not from the period before.

Counting from the anchor is what lets an anchor on the 31st clamp to the end of a short month and
come back to the 31st after it.
"""

import calendar
from datetime import UTC, datetime, timedelta

from tallystick.sandbox.stripe.wire import Obj

_DAYS = {"day": 1, "week": 7}
_MONTHS = {"month": 1, "year": 12}


def on_day(year: int, month: int, day: int, time: datetime) -> datetime:
    """Return the day of a month at a time of day, the month's last day where it is shorter."""
    last = calendar.monthrange(year, month)[1]
    return time.replace(year=year, month=month, day=min(day, last))


def boundary(anchor: int, recurring: Obj, number: int, day: int | None = None) -> int:
    """Return the instant `number` periods from the anchor, in Unix seconds.

    `day` is the day of the month that is meant where the anchor's own is a clamped one.
    """
    start = datetime.fromtimestamp(anchor, UTC)
    count = recurring["interval_count"] * number
    if recurring["interval"] in _DAYS:
        return int((start + timedelta(days=_DAYS[recurring["interval"]] * count)).timestamp())
    months = start.year * 12 + start.month - 1 + _MONTHS[recurring["interval"]] * count
    at = on_day(months // 12, months % 12 + 1, day or start.day, start)
    return int(at.timestamp())


def around(anchor: int, recurring: Obj, now: int, day: int | None = None) -> tuple[int, int]:
    """Return the whole period that holds `now`: start, and end exclusive."""
    length = boundary(anchor, recurring, 1, day) - anchor
    number = (now - anchor) // length  # a first guess, months having several lengths
    while boundary(anchor, recurring, number, day) > now:
        number -= 1
    while boundary(anchor, recurring, number + 1, day) <= now:
        number += 1
    return boundary(anchor, recurring, number, day), boundary(anchor, recurring, number + 1, day)


def next_on(
    now: int, day: int, *, month: int | None, hour: int | None, minute: int | None,
    second: int | None,
) -> int:  # fmt: skip
    """Return the next instant on a day of the month; what is not given is as it is now."""
    base = datetime.fromtimestamp(now, UTC)
    time = base.replace(
        hour=base.hour if hour is None else hour,
        minute=base.minute if minute is None else minute,
        second=base.second if second is None else second,
    )
    months = base.year * 12 + base.month - 1
    while True:
        at = on_day(months // 12, months % 12 + 1, day, time)
        if at > base and month in (None, at.month):
            return int(at.timestamp())
        months += 1
