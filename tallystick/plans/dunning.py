"""Grace: how long a customer whose payment failed is served, and when it is reminded.

Grace is counted in the customer's days, by the clock on its wall: three days from Tuesday 16:00 is
Friday 16:00, also across a change to summer time. An end that falls on a weekend, or on a Monday
before its evening, moves to Monday evening. So a failure on a Friday evening leaves a working day
to notice it (requirement 41), and nobody's service stops on a Sunday.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

EVENING = time(18)
"""Of a working day: whoever pays bills has had the day to see the reminder."""

_MONDAY, _SATURDAY = 0, 5


def grace_end(failed_at: datetime, days: int, time_zone: str) -> datetime:
    """Return when service stops, for a payment that failed (or was overdue) at `failed_at`.

    Args:
        failed_at: the first failure; later ones of the same invoice change nothing.
        days: the plan's grace.
        time_zone: the customer's.
    """
    end = _wall_clock_days_later(failed_at, days, time_zone)
    weekday = end.weekday()
    if weekday >= _SATURDAY or (weekday == _MONDAY and end.time() < EVENING):
        monday = end.date() + timedelta(days=(7 - weekday) % 7)
        end = datetime.combine(monday, EVENING, tzinfo=ZoneInfo(time_zone))
    return end.astimezone(UTC)


def reminders(
    failed_at: datetime, days_after: Sequence[int], time_zone: str, *, until: datetime
) -> list[datetime]:
    """Return when the customer is reminded: so many days after the failure each, inside grace."""
    instants = (_wall_clock_days_later(failed_at, days, time_zone) for days in days_after)
    return sorted(at.astimezone(UTC) for at in instants if at < until)


def _wall_clock_days_later(at: datetime, days: int, time_zone: str) -> datetime:
    # Adding to an aware local time keeps the clock on the wall, whatever daylight saving does.
    return at.astimezone(ZoneInfo(time_zone)) + timedelta(days=days)
