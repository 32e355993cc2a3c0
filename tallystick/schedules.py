"""The schedules that Tallystick runs on, made and kept by `tallystick setup`.

A schedule is found by its id and brought to what this version wants, so setting up twice, or after
an update, leaves exactly one of each.
"""

from datetime import timedelta

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleCalendarSpec,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleRange,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.service import RPCError

from tallystick.contracts import RECONCILIATION, SWEEP, TASK_QUEUE, ReconcileOrder
from tallystick.errors import UnavailableError

SWEEP_EVERY = timedelta(minutes=1)
MISSED = timedelta(minutes=1)
"""Runs that were missed for longer are left out: one sweep does what all of them would have."""

HOURLY_MINUTE = 20
"""Past the hour: Anthropic's reports have the hour after some five minutes, usually."""
DAILY_AT = (2, 30)
"""Hour and minute, UTC: the day is over everywhere it is counted, and its last batches are in."""
MADE_UP_FOR = timedelta(days=1)
"""Reconciliations that were missed for longer are left out. Each compares the hours that it was
scheduled for, and the next daily one also those of the days that none has compared."""


async def ensure_schedules(client: Client) -> list[str]:
    """Make the schedules, or bring them to what this version wants; returns their ids.

    Raises:
        UnavailableError: when the server does not allow it.
    """
    hourly = ScheduleCalendarSpec(
        hour=[ScheduleRange(0, 23)], minute=[ScheduleRange(HOURLY_MINUTE)]
    )
    hour, minute = DAILY_AT
    daily = ScheduleCalendarSpec(hour=[ScheduleRange(hour)], minute=[ScheduleRange(minute)])
    wanted = {
        "sweep": _sweep(),
        "reconciliation-hourly": _reconciliation(ReconcileOrder(kind="hourly"), hourly),
        "reconciliation-daily": _reconciliation(ReconcileOrder(kind="daily"), daily),
    }
    try:
        for name, schedule in wanted.items():
            await _ensure(client, name, schedule)
    except RPCError as error:
        raise UnavailableError(f"Temporal does not let us make schedules: {error}") from error
    return list(wanted)


async def _ensure(client: Client, name: str, schedule: Schedule) -> None:
    try:
        await client.create_schedule(name, schedule)
    except ScheduleAlreadyRunningError:

        async def bring_up_to_date(current: ScheduleUpdateInput) -> ScheduleUpdate:
            # Paused is an operator's word and stays.
            schedule.state = current.description.schedule.state
            return ScheduleUpdate(schedule=schedule)

        await client.get_schedule_handle(name).update(bring_up_to_date)


def _sweep() -> Schedule:
    return Schedule(
        action=ScheduleActionStartWorkflow(SWEEP, id="sweep", task_queue=TASK_QUEUE),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=SWEEP_EVERY)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=MISSED),
    )


def _reconciliation(order: ReconcileOrder, when: ScheduleCalendarSpec) -> Schedule:
    return Schedule(
        action=ScheduleActionStartWorkflow(
            RECONCILIATION, order, id=f"reconciliation-{order.kind}", task_queue=TASK_QUEUE
        ),
        spec=ScheduleSpec(calendars=[when], time_zone_name="UTC"),
        # One more waits while a run takes longer: each has hours of its own to compare.
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.BUFFER_ONE, catchup_window=MADE_UP_FOR),
    )
