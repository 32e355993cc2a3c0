"""Months are the customer's: they meet without gap or overlap, whatever the clock does."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.plans.periods import calendar_month

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Apia", "Asia/Beirut"]
instants = st.datetimes(
    min_value=datetime(2000, 1, 1), max_value=datetime(2050, 1, 1), timezones=st.just(UTC)
)


@given(instants, st.sampled_from(ZONES))
def test_every_instant_is_in_its_month_and_months_meet(at: datetime, zone: str) -> None:
    month = calendar_month(at, zone)
    assert month.start <= at < month.end
    assert calendar_month(month.start, zone) == month
    assert calendar_month(month.end, zone).start == month.end


@given(instants, st.sampled_from(ZONES))
def test_a_month_begins_at_midnight_of_the_first_where_the_customer_is(
    at: datetime, zone: str
) -> None:
    start = calendar_month(at, zone).start.astimezone(ZoneInfo(zone))
    assert (start.day, start.hour, start.minute) == (1, 0, 0)
    local = at.astimezone(ZoneInfo(zone))
    assert (start.year, start.month) == (local.year, local.month)


@pytest.mark.parametrize(
    ("at", "zone", "start", "end"),
    [
        # Berlin is two hours ahead in October, one from the 25th on: the month has 745 hours.
        ("2026-10-31T22:59:59Z", "Europe/Berlin", "2026-09-30T22:00Z", "2026-10-31T23:00Z"),
        ("2026-10-31T23:00:00Z", "Europe/Berlin", "2026-10-31T23:00Z", "2026-11-30T23:00Z"),
        ("2026-12-31T12:00:00Z", "UTC", "2026-12-01T00:00Z", "2027-01-01T00:00Z"),
        ("2028-02-29T12:00:00Z", "UTC", "2028-02-01T00:00Z", "2028-03-01T00:00Z"),
    ],
)
def test_worked_examples(at: str, zone: str, start: str, end: str) -> None:
    month = calendar_month(datetime.fromisoformat(at), zone)
    assert month == (datetime.fromisoformat(start), datetime.fromisoformat(end))
