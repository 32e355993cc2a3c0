"""Years in minutes: moves the clock of a running cycle, and the Stripe stand-in's with it.

A server started with `embedded.VIRTUAL_TIME` keeps a clock per workflow, which can be moved on
while the workflow waits for a timer. Production code does not know: cycles take `workflow.now()`,
and their steps are told the instant. Stripe's clock is set first, always to the very next instant
at which a cycle or Stripe itself has something to do, so that each side finds the other where it
would be in life.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from temporalio.client import Client, WorkflowQueryFailedError
from temporalio.service import RPCError
from temporalio.testing import TimeSkipper, TimeSkippingConfig

from tallystick.contracts import Agenda, cycle_workflow_id

BETWEEN_RUNS = 1.3
"""Real seconds to leave after a cycle has continued as new: sooner, the server's clock would jump
by all that was skipped before (facts on Temporal, 'Which test environment')."""
BETWEEN_LOOKS = 0.05
PATIENCE = 120.0
"""Real seconds for cycles to finish what is due."""


class VirtualTime:
    """One time for the cycles of `customers` and for the Stripe stand-in at `stripe`, if any.

    `quiet` tells whether what else happens by itself, such as webhooks, has come to rest.
    """

    def __init__(
        self,
        temporal: Client,
        stripe: httpx.AsyncClient | None,
        customers: Sequence[str] = (),
        *,
        quiet: Callable[[], Awaitable[bool]] | None = None,
        patience: float = PATIENCE,
    ):
        self._temporal = temporal
        self._patience = patience
        self._quiet = quiet
        self._skipper = TimeSkipper(temporal, config=TimeSkippingConfig(enabled=False))
        self._stripe = stripe
        self.customers = list(customers)
        self._periods: dict[str, datetime | None] = {}

    async def to(self, instant: datetime) -> None:
        """Let everything happen that is due until `instant`, each thing at its own."""
        while True:
            await self.settle()
            nexts = [*[await self._next(each) for each in self.customers], await self._stripes()]
            target = min([instant, *(at for at in nexts if at is not None)])
            await self.set_stripe(target)
            for customer in self.customers:
                await self._forward(customer, target)
            await self.settle()
            if target == instant:
                return

    async def settle(self) -> None:
        """Wait until no cycle has anything left that is due by now."""
        async with asyncio.timeout(self._patience):
            while not await self._is_settled():  # noqa: ASYNC110 - in other processes
                await asyncio.sleep(BETWEEN_LOOKS)

    async def agenda(self, customer: str) -> Agenda:
        """Return what happens next to the customer's account, as its cycle tells."""
        handle = self._temporal.get_workflow_handle(cycle_workflow_id(customer))
        return await handle.query("what_next", result_type=Agenda)

    async def now(self, customer: str) -> datetime:
        """Return the time in the customer's cycle."""
        handle = self._temporal.get_workflow_handle(cycle_workflow_id(customer))
        extended = (await handle.describe()).raw_description.workflow_extended_info
        if not extended.HasField("time_skipping_info"):
            return datetime.now(UTC)
        return extended.time_skipping_info.current_time.ToDatetime(tzinfo=UTC)

    async def set_stripe(self, instant: datetime) -> None:
        """Set the stand-in's clock, unless it is there already or beyond."""
        if self._stripe is not None and instant.timestamp() > (await self._clock())["now"]:
            answer = await self._stripe.post("/_sandbox/clock", json={"now": instant.timestamp()})
            answer.raise_for_status()

    async def _forward(self, customer: str, instant: datetime) -> None:
        ahead = instant - await self.now(customer)
        handle = self._temporal.get_workflow_handle(cycle_workflow_id(customer))
        has_ended = (await handle.describe()).close_time is not None
        if has_ended or ahead <= timedelta(0):
            return
        await self._skipper.fast_forward(handle, ahead)

    async def _next(self, customer: str) -> datetime | None:
        dues = (await self.agenda(customer)).dues
        return dues[0].at if dues else None

    async def _stripes(self) -> datetime | None:
        at = (await self._clock()).get("next")
        return None if at is None else datetime.fromtimestamp(at, UTC)

    async def _clock(self) -> dict[str, Any]:
        if self._stripe is None:
            return {}
        return (await self._stripe.get("/_sandbox/clock")).raise_for_status().json()

    async def _is_settled(self) -> bool:
        # The cycles last: what is not quiet may still give them something to do.
        if self._stripe is not None:
            answer = await self._stripe.get("/_sandbox/deliveries", params={"limit": 1})
            if answer.raise_for_status().json()["under_way"]:
                return False
        if self._quiet is not None and not await self._quiet():
            return False
        return all([await self._is_idle(customer) for customer in self.customers])

    async def _is_idle(self, customer: str) -> bool:
        try:
            agenda = await self.agenda(customer)
        except (WorkflowQueryFailedError, RPCError):
            return False  # it has not looked yet, or is between two runs
        if self._periods.setdefault(customer, agenda.period_start) != agenda.period_start:
            self._periods[customer] = agenda.period_start
            await asyncio.sleep(BETWEEN_RUNS)
        if await self._is_at_work(customer):
            return False
        # A moment's grace: the clock goes on while this asks.
        return not agenda.dues or agenda.dues[0].at > await self.now(customer)

    async def _is_at_work(self, customer: str) -> bool:
        """Tell whether a step is under way, or the cycle has yet to hear what it came to."""
        handle = self._temporal.get_workflow_handle(cycle_workflow_id(customer))
        now = (await handle.describe()).raw_description
        # A step that failed and waits for its next try is no reason to wait here.
        trying = any(step.attempt == 1 for step in now.pending_activities)
        return trying or now.HasField("pending_workflow_task")
