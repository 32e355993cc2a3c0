"""The baseline under the drill: its processes, its own stand-ins, and the application that asks it.

As many processes as Tallystick has workers, killed at the same moments and started again at once; a
caller whose process died under it asks the next one. There is no server to lose.
"""

import asyncio
import itertools
import os
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx

from activities.stripe_catalog import create_customer
from activities.stripe_clients import stripe_client
from tallystick.embedded import free_port
from tallystick.local import stand_ins
from tallystick.sandbox.remote import Control
from tallystick.services import endpoints_at
from tallystick.settings import SANDBOX_CLAUDE_KEY, SANDBOX_STRIPE_KEY, Settings

from . import baseline
from .books import Row
from .heard import Heard
from .insisting import insist
from .load import Ask
from .mischief import StandIns
from .product import CUSTOMERS
from .schedule import Death
from .supervisor import Fleet


class Naive:
    """The running processes."""

    def __init__(
        self,
        home: Path,
        http: httpx.AsyncClient,
        *,
        claude_url: str,
        stripe_url: str,
        stripe_ids: Mapping[str, str],
        size: int,
    ):
        self.stand_ins = StandIns(Control(http, claude_url), Control(http, stripe_url))
        self.fleet = Fleet(self._start, size)
        self._home, self._http, self._stripe_ids = home, http, stripe_ids
        self._environment = {
            **os.environ,
            "ANTHROPIC_API_KEY": SANDBOX_CLAUDE_KEY,
            "ANTHROPIC_BASE_URL": claude_url,
            "STRIPE_API_KEY": SANDBOX_STRIPE_KEY,
            "STRIPE_API_BASE": stripe_url,
        }
        self._ports = [free_port() for _ in range(size)]
        self._turns = itertools.cycle(self._ports)

    async def ask(self, ask: Ask) -> Heard:
        """Ask until a process answers, with Claude's reply or an error."""
        question = {
            "stripe_customer_id": self._stripe_ids[ask.customer_id],
            "request_id": ask.request_id,
            "params": ask.params,
        }
        answer = await insist(
            lambda: self._http.post(f"http://127.0.0.1:{next(self._turns)}/ask", json=question),
            httpx.TransportError,
        )
        if answer.is_success:
            return Heard(message_id=answer.json()["id"])
        return Heard(refused=answer.json()["error"])

    async def die(self, death: Death) -> None:
        """Lose a process when Tallystick loses a worker."""
        if death.victim == "worker":
            self.fleet.kill(death.slot)

    async def records(self) -> tuple[list[Row], list[Row]]:
        """Return what Claude served and what Stripe accepted: there is no other record."""
        return await self.stand_ins.claude.journal(), await self.stand_ins.stripe.journal()

    async def _start(self, slot: int) -> Process:
        with (self._home / "baseline.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable, baseline.__file__, str(self._ports[slot]),
                stdin=DEVNULL, stdout=log, stderr=log, env=self._environment,
                start_new_session=True,
            )  # fmt: skip


@asynccontextmanager
async def naive(home: Path, size: int) -> AsyncGenerator[Naive, None]:
    """Run `size` processes of the baseline on stand-ins of their own."""
    home.mkdir()  # noqa: ASYNC240 - once, at start
    async with AsyncExitStack() as stack:
        claude_url, stripe_url = await stack.enter_async_context(stand_ins(home))
        http = await stack.enter_async_context(
            # Patient, as callers of a model have to be, and with room for all of them.
            httpx.AsyncClient(timeout=600, limits=httpx.Limits(max_connections=None))
        )
        running = Naive(
            home,
            http,
            claude_url=claude_url,
            stripe_url=stripe_url,
            stripe_ids=await _in_stripe(stripe_url),
            size=size,
        )
        async with running.fleet.kept():
            yield running


async def _in_stripe(stripe_url: str) -> Mapping[str, str]:
    """Set up what the baseline needs in Stripe; returns customers' ids there by our names."""
    settings = Settings()
    where = endpoints_at(settings, frozenset({"claude", "stripe"}), None, stripe_url)
    async with stripe_client(where, settings) as stripe:
        for meter in baseline.METERS.values():
            await stripe.v1.billing.meters.create_async(
                {
                    "display_name": meter,
                    "event_name": meter,
                    "default_aggregation": {"formula": "sum"},
                }
            )
        return {name: await create_customer(stripe, name, name) for name in CUSTOMERS}
