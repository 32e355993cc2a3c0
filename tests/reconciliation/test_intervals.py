"""Which hours a run compares: by the instant it was scheduled for, and only hours that are over."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from tallystick.contracts import ReconcileOrder
from tallystick.reconciling.intervals import interval_of

NOW = datetime(2026, 3, 11, 14, 20, tzinfo=UTC)
TODAY = datetime(2026, 3, 11, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def _hours(
    order: ReconcileOrder,
    scheduled_at: datetime | None = NOW,
    compared_until: datetime | None = None,
) -> tuple[datetime, datetime]:
    return interval_of(order, scheduled_at=scheduled_at, now=NOW, compared_until=compared_until)


def test_an_hourly_run_compares_the_last_twelve_hours_that_were_over_when_it_was_due() -> None:
    due = datetime(2026, 3, 11, 9, 20, tzinfo=UTC)  # it was held up for five hours
    nine = TODAY + 9 * HOUR
    assert _hours(ReconcileOrder(kind="hourly"), due) == (nine - 12 * HOUR, nine)


def test_a_daily_run_compares_the_day_before_it_was_due() -> None:
    due = datetime(2026, 3, 10, 2, 30, tzinfo=UTC)
    assert _hours(ReconcileOrder(kind="daily"), due) == (TODAY - 2 * DAY, TODAY - DAY)


def test_a_daily_run_makes_up_for_days_that_were_late_but_not_for_ever() -> None:
    daily = ReconcileOrder(kind="daily")
    assert _hours(daily, compared_until=TODAY - 3 * DAY) == (TODAY - 3 * DAY, TODAY)
    assert _hours(daily, compared_until=TODAY - 30 * DAY) == (TODAY - 8 * DAY, TODAY)
    # The day itself again, where it was compared already.
    assert _hours(daily, compared_until=TODAY) == (TODAY - DAY, TODAY)


def test_hours_that_are_given_are_compared_as_they_are() -> None:
    plus_two = timezone(2 * HOUR)
    order = ReconcileOrder(
        start=datetime(2026, 3, 11, 2, tzinfo=plus_two), end=datetime(2026, 3, 11, 16, tzinfo=UTC)
    )
    assert interval_of(order, scheduled_at=None, now=TODAY + 16 * HOUR, compared_until=None) == (
        TODAY,
        TODAY + 16 * HOUR,
    )


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [
        (TODAY, None, "end: is missing while start is given"),
        (None, TODAY, "start: is missing while end is given"),
        (TODAY, TODAY, "end: 2026-03-11 00:00 UTC is not after the start"),
        (TODAY, TODAY + timedelta(minutes=90), "end: 2026-03-11 01:30:00 UTC is not on a whole"),
        (TODAY + timedelta(seconds=1), TODAY + HOUR, "start: 2026-03-11 00:00:01 UTC is not on a"),
        (TODAY, TODAY + 15 * HOUR, "end: the hours until 2026-03-11 15:00 UTC are not over yet"),
        (TODAY - 32 * DAY, TODAY, "start: 2026-02-07 00:00 UTC is more than 31 days before"),
    ],
)
def test_hours_that_cannot_be_compared_are_refused_with_the_reason(
    start: datetime | None, end: datetime | None, words: str
) -> None:
    with pytest.raises(ValueError, match=f"^{words}"):
        _hours(ReconcileOrder(start=start, end=end), None)
