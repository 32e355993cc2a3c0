"""Grace and reminders, by the customer's clock on the wall."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from tallystick.plans.dunning import grace_end, reminders

BERLIN = "Europe/Berlin"


def _at(text: str, zone: str = BERLIN) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


@pytest.mark.parametrize(
    ("failed", "days", "ends"),
    [
        # 2027-03-02 is a Tuesday: three days by the clock on the wall.
        ("2027-03-02T16:00", 3, "2027-03-05T16:00"),
        # Friday evening: not before Monday evening.
        ("2027-03-05T19:30", 3, "2027-03-08T19:30"),
        ("2027-03-05T19:30", 1, "2027-03-08T18:00"),
        # Friday noon would end on Monday noon, before anybody has read the reminder.
        ("2027-03-05T12:00", 3, "2027-03-08T18:00"),
        # Wednesday and Thursday would end on the weekend.
        ("2027-03-03T10:00", 3, "2027-03-08T18:00"),
        ("2027-03-04T10:00", 3, "2027-03-08T18:00"),
        # Over the change to summer time (2027-03-28) and back (2027-10-31) the wall clock stays.
        ("2027-03-26T19:00", 4, "2027-03-30T19:00"),
        ("2027-10-29T19:00", 4, "2027-11-02T19:00"),
    ],
)
def test_grace_ends_on_a_working_day_by_the_wall_clock(failed: str, days: int, ends: str) -> None:
    assert grace_end(_at(failed), days, BERLIN) == _at(ends)


def test_the_weekend_is_the_customers_and_not_ours() -> None:
    # Saturday 01:00 in Berlin is still Friday evening in New York.
    failed = _at("2027-03-06T01:00")
    assert grace_end(failed, 2, BERLIN) == _at("2027-03-08T18:00")
    new_york = grace_end(failed, 2, "America/New_York")
    assert new_york == _at("2027-03-08T18:00", "America/New_York")
    assert new_york > grace_end(failed, 2, BERLIN)


def test_reminders_fall_inside_grace_only() -> None:
    failed, end = _at("2027-03-02T16:00"), _at("2027-03-05T16:00")
    assert reminders(failed, (2, 1, 3, 9), BERLIN, until=end) == [
        _at("2027-03-03T16:00"),
        _at("2027-03-04T16:00"),
    ]
