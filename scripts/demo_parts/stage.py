"""What every act of the demo stands on: the running servers and the clients that reach them."""

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from stripe import StripeClient
from temporalio.client import Client as TemporalClient

from activities.stripe_catalog import ensure_catalog
from activities.stripe_clients import stripe_client
from tallystick.client import Client
from tallystick.embedded import VIRTUAL_TIME, free_port
from tallystick.errors import TallystickError
from tallystick.ledger.database import Ledger
from tallystick.local import LocalStack, local_stack
from tallystick.sandbox.remote import Control
from tallystick.settings import Settings
from tallystick.temporal import connect_temporal

from .show import err

_QUICK = {
    "TALLYSTICK_BATCH_REQUESTS": "50",
    "TALLYSTICK_BATCH_POLL": "1",
    "TALLYSTICK_SUMMARIES_SETTLE": "1",
}
"""Small batches and quick looks at a stand-in's, so that there is something to watch; and its sums
count what it has acknowledged at once."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Running servers, a worker, and clients for them."""

    local: LocalStack
    client: Client
    temporal: TemporalClient
    ledger: Ledger
    stripe: StripeClient
    stand_ins: Mapping[str, Control]
    """The other sides of `claude` and `stripe`, of those that stand in."""

    def check_worker(self) -> None:
        """Look whether the worker still runs.

        Raises:
            TallystickError: it has ended by itself.
        """
        if self.local.workers[0].returncode is not None:
            raise TallystickError(
                f"the worker ended by itself; its log is {self.local.home / 'worker.log'}"
            )


@asynccontextmanager
async def stage(settings: Settings, home: Path) -> AsyncGenerator[Stage, None]:
    """Start everything in `home` with one worker; it all ends with the context.

    PostgreSQL and Temporal are always the run's own: what `DATABASE_URL` and `TEMPORAL_...` name
    is somebody's real system.
    """
    for name in [name for name in os.environ if name.startswith("TEMPORAL_")]:
        del os.environ[name]
    settings = settings.model_copy(update={"home": home, "database_url": None})
    async with AsyncExitStack() as stack:
        local = await stack.enter_async_context(
            local_stack(settings, ui_port=free_port(), temporal_arguments=VIRTUAL_TIME)
        )
        stripe = await stack.enter_async_context(stripe_client(local.endpoints(settings), settings))
        if "stripe" not in local.sandboxed:
            made = (await ensure_catalog(stripe)).made
            err.print(f"made in your Stripe account: {', '.join(made) or 'nothing new'}")
        await local.start_worker(**(_QUICK if "claude" in local.sandboxed else {}))
        ledger = Ledger(local.database_url, pool_size=4)
        stack.push_async_callback(ledger.close)
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=60))
        temporal = await connect_temporal(local.temporal.address)
        urls = {"claude": local.claude_url, "stripe": local.stripe_url}
        controls = {each: Control(http, urls[each] or "") for each in sorted(local.sandboxed)}
        yield Stage(local, Client(temporal), temporal, ledger, stripe, controls)
