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
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.service import RPCError

from tallystick.contracts import SWEEP, TASK_QUEUE
from tallystick.errors import UnavailableError

SWEEP_EVERY = timedelta(minutes=1)
MISSED = timedelta(minutes=1)
"""Runs that were missed for longer are left out: one sweep does what all of them would have."""


async def ensure_schedules(client: Client) -> list[str]:
    """Make the schedules, or bring them to what this version wants; returns their ids.

    Raises:
        UnavailableError: when the server does not allow it.
    """
    wanted = {"sweep": _sweep()}
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
