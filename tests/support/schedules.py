"""The schedules as they are set up, paused at once: a shared server starts nothing by them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio.client import Client, ScheduleHandle

from tallystick.schedules import ensure_schedules

NOTE = "Stripe is being moved"


@asynccontextmanager
async def paused_schedules(temporal: Client) -> AsyncIterator[dict[str, ScheduleHandle]]:
    """Set up all schedules and pause them, as an operator would; they end with the block."""
    handles = {
        name: temporal.get_schedule_handle(name) for name in await ensure_schedules(temporal)
    }
    try:
        for schedule in handles.values():
            await schedule.pause(note=NOTE)
        yield handles
    finally:
        for schedule in handles.values():
            await schedule.delete()
