"""Spans of time that money is counted over, as instants.

A calendar month is the customer's month: it begins at midnight in the customer's time zone, which
daylight saving moves against UTC. A billing period runs from one monthly return of the account's
anchor to the next, at the anchor's local time; an anchor on the 29th to 31st falls on the last day
of a shorter month and returns. Every boundary is worked out from the anchor itself and never from
the boundary before it, so a short month shifts nothing for good. The bounds are instants in UTC, so
everything that compares with them compares plain instants and cannot disagree about a zone.
"""

import calendar
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


def billing_period(anchor: datetime, time_zone: str, ordinal: int) -> Period:
    """Return the account's period of that number; the first, from the anchor on, is 1.

    A local time that daylight saving skips is taken as an hour later, and of one that comes twice
    the first is meant (PEP 495, fold 0).
    """
    return Period(_return(anchor, time_zone, ordinal - 1), _return(anchor, time_zone, ordinal))


def period_at(anchor: datetime, time_zone: str, at: datetime) -> tuple[int, Period]:
    """Return the number and the bounds of the period around the instant `at`.

    Raises:
        ValueError: for an instant before the anchor.
    """
    if at < anchor:
        raise ValueError(f"no period at {at.isoformat()}: the first begins {anchor.isoformat()}")
    zone = ZoneInfo(time_zone)
    began, local = anchor.astimezone(zone), at.astimezone(zone)
    # Right or one too many: whether the month's return has come yet decides.
    ordinal = (local.year - began.year) * 12 + local.month - began.month + 1
    period = billing_period(anchor, time_zone, ordinal)
    if at < period.start:
        ordinal, period = ordinal - 1, billing_period(anchor, time_zone, ordinal - 1)
    return ordinal, period


def _return(anchor: datetime, time_zone: str, months: int) -> datetime:
    """Return the anchor so many months later, clamped to the month's last day."""
    if months == 0:
        return anchor.astimezone(UTC)
    local = anchor.astimezone(ZoneInfo(time_zone))
    year, month = divmod(local.year * 12 + local.month - 1 + months, 12)
    day = min(local.day, calendar.monthrange(year, month + 1)[1])
    return local.replace(year=year, month=month + 1, day=day, fold=0).astimezone(UTC)
