"""Spans of time that money is counted over, as instants.

A month is the customer's month: it begins at midnight in the customer's time zone, which daylight
saving moves against UTC. The bounds are instants in UTC, so everything that compares with them
compares plain instants and cannot disagree about a zone.
"""

from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo


class Period(NamedTuple):
    """From `start` on, until before `end`."""

    start: datetime
    end: datetime


def calendar_month(at: datetime, time_zone: str) -> Period:
    """Return the calendar month around the instant `at`, in the time zone of that name."""
    zone = ZoneInfo(time_zone)
    local = at.astimezone(zone)
    first = datetime(local.year, local.month, 1, tzinfo=zone)
    following = (local.year + 1, 1) if local.month == 12 else (local.year, local.month + 1)  # noqa: PLR2004
    end = datetime(*following, 1, tzinfo=zone)
    return Period(first.astimezone(UTC), end.astimezone(UTC))
