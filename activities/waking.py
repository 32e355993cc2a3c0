"""`wake_accounts`: tells cycles of what waits for them, and starts those that do not run.

Signal-with-start under the account's one workflow id: a running cycle hears of it, a lost one
comes back, and one that already knew looks once more and finds nothing to do.
"""

from datetime import UTC, datetime

from temporalio import activity
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from activities.failures import failure
from activities.transactions import transaction
from tallystick.contracts import (
    BILLING_CYCLE,
    TASK_QUEUE,
    CycleOrder,
    News,
    cycle_workflow_id,
)
from tallystick.errors import TEMPORAL_UNAVAILABLE
from tallystick.ledger import attention
from tallystick.ledger.database import Ledger

AT_ONCE = 1_000
"""Accounts woken by one run; the next run takes the rest."""


async def wake(client: Client, customer_id: str, news: News) -> None:
    """Tell a customer's cycle of news, starting it where it does not run.

    Raises:
        RPCError: when Temporal does not answer.
    """
    await client.start_workflow(
        BILLING_CYCLE,
        CycleOrder(customer_id=customer_id),
        id=cycle_workflow_id(customer_id),
        task_queue=TASK_QUEUE,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        start_signal="news",
        start_signal_args=[news],
    )


class WakingActivities:
    """Wakes cycles of accounts in `ledger` through `client`."""

    def __init__(self, ledger: Ledger, client: Client):
        self._ledger = ledger
        self._client = client

    @activity.defn
    async def wake_accounts(self) -> int:
        """Tell every cycle for which something waits; returns how many were told."""
        async with transaction(self._ledger) as tx:
            waiting = await attention.waiting_accounts(tx, datetime.now(UTC), AT_ONCE)
        for customer_id in waiting:
            try:
                await wake(self._client, customer_id, News())
            except RPCError as error:
                told = f"Temporal did not take a signal for {customer_id}: {error}"
                raise failure(TEMPORAL_UNAVAILABLE, told) from error
        return len(waiting)
