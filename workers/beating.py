"""Heartbeats for every step that is given up without them.

A step of an account that is told to heartbeat has nothing to say with it but that its worker lives.
Saying so here, for all of them, leaves the steps free of it; a killed worker is noticed after the
timeout that the workflow names, and not after the longest time a step may take.
"""

from typing import Any

from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from activities.heartbeats import heartbeating
from tallystick.contracts import BILLING_CYCLE, SWEEP

_OF = (BILLING_CYCLE, SWEEP)


class Beating(Interceptor):
    """Heartbeats during steps of accounts; those of others see to it themselves."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Put the heartbeat around the step."""
        return _Beating(next)


class _Beating(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info = activity.info()
        if info.is_local or info.workflow_type not in _OF:
            return await super().execute_activity(input)
        async with heartbeating():
            return await super().execute_activity(input)
