"""`Sweep`: every minute, whatever no single account would notice by itself.

Forwards Stripe's events that waited, fetches those that never came, looks which customers have
passed a share of an allowance or a cap, wakes accounts that have something waiting, and deletes
large payloads that no workflow can need any more and content whose date has come. Each step is
repeatable and does nothing where there is nothing; one that fails holds up no other, and is tried
again by the next run. So no retries here: the schedule is the retry.
"""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from tallystick.contracts import SWEEP

STEP_TIMEOUT = timedelta(minutes=5)
"""Of one step. A run that takes longer than the minute makes the schedule skip, not pile up."""
STEP_HEARTBEAT = timedelta(seconds=15)
"""A killed worker is noticed after this, and the next run does the step."""
ONCE = RetryPolicy(maximum_attempts=1)
STEPS = (
    "backfill_events",
    "forward_events",
    "handle_meter_reports",
    "watch_usage",
    "wake_accounts",
    "send_operator_notices",
    "sweep_payloads",
)


@workflow.defn(name=SWEEP)
class SweepWorkflow:
    """One sweep; the schedule `sweep` starts it every minute."""

    @workflow.run
    async def run(self) -> dict[str, int | str]:
        """Take every step; returns what each one found, or why it failed."""
        found: dict[str, int | str] = {}
        for step in STEPS:
            try:
                found[step] = await workflow.execute_activity(
                    step,
                    result_type=int,
                    start_to_close_timeout=STEP_TIMEOUT,
                    heartbeat_timeout=STEP_HEARTBEAT,
                    retry_policy=ONCE,
                )
            except ActivityError as error:
                found[step] = f"failed: {error.cause or error}"
        return found
