"""The schedules on a real server: set up once, and brought back to what this version wants."""

from datetime import timedelta
from typing import Any, cast

from temporalio.client import (
    Client,
    ScheduleActionStartWorkflow,
    ScheduleCalendarSpec,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    ScheduleRange,
    ScheduleUpdate,
    ScheduleUpdateInput,
)

from tallystick.contracts import RECONCILIATION, SWEEP
from tallystick.schedules import SWEEP_EVERY, ensure_schedules
from tests.support.schedules import NOTE, paused_schedules

WANTED: dict[str, tuple[str, Any]] = {
    "sweep": (SWEEP, None),
    "reconciliation-hourly": (RECONCILIATION, {"kind": "hourly"}),
    "reconciliation-daily": (RECONCILIATION, {"kind": "daily"}),
}


async def test_setting_up_again_keeps_a_pause_and_mends_all_else(temporal: Client) -> None:
    def as_another_version_had_it(current: ScheduleUpdateInput) -> ScheduleUpdate:
        schedule = current.description.schedule
        schedule.spec.calendars = []
        schedule.spec.intervals = [ScheduleIntervalSpec(every=timedelta(hours=7))]
        cast("ScheduleActionStartWorkflow", schedule.action).workflow = "SomethingElse"
        return ScheduleUpdate(schedule)

    async with paused_schedules(temporal) as schedules:
        assert list(schedules) == list(WANTED)
        for name, paused in schedules.items():
            set_up = (await paused.describe()).schedule
            await paused.update(as_another_version_had_it)
            for _ in range(2):
                assert await ensure_schedules(temporal) == list(WANTED)
                mended = (await paused.describe()).schedule
                assert (mended.state.paused, mended.state.note) == (True, NOTE)
                assert (mended.spec, mended.policy) == (set_up.spec, set_up.policy)
                action = cast("ScheduleActionStartWorkflow", mended.action)
                arguments = await temporal.data_converter.decode(action.args) or [None]
                assert (action.workflow, _without_nulls(arguments[0])) == WANTED[name]


async def test_each_has_its_own_times_and_no_run_of_a_reconciliation_is_skipped(
    temporal: Client,
) -> None:
    async with paused_schedules(temporal) as schedules:
        told = {name: (await each.describe()).schedule for name, each in schedules.items()}
    assert [each.every for each in told["sweep"].spec.intervals] == [SWEEP_EVERY]
    (hourly,) = told["reconciliation-hourly"].spec.calendars
    (daily,) = told["reconciliation-daily"].spec.calendars
    assert _clock(hourly) == ([ScheduleRange(0, 23, 1)], [ScheduleRange(20, 20, 1)])
    assert _clock(daily) == ([ScheduleRange(2, 2, 1)], [ScheduleRange(30, 30, 1)])
    for name in ("reconciliation-hourly", "reconciliation-daily"):
        assert told[name].spec.time_zone_name == "UTC"
        assert told[name].policy.overlap is ScheduleOverlapPolicy.BUFFER_ONE
        assert told[name].policy.catchup_window == timedelta(days=1)


def _clock(calendar: ScheduleCalendarSpec) -> tuple[list[ScheduleRange], list[ScheduleRange]]:
    return list(calendar.hour), list(calendar.minute)


def _without_nulls(told: dict[str, Any] | None) -> dict[str, Any] | None:
    return told and {name: value for name, value in told.items() if value is not None}
