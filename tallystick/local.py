"""The whole of Tallystick on one machine: servers, stand-ins and workers as processes of their own.

`tallystick dev`, the demo, the benchmarks and the crash tests all stand on this. Workers and
stand-ins are separate processes, as in production: a worker can be killed while Claude and Stripe
remember what they served.
"""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import httpx

from tallystick.devnote import DevNote, began
from tallystick.embedded import (
    POSTGRES_FOLDER,
    EmbeddedError,
    TemporalServer,
    embedded_postgres,
    free_port,
    kill_postgres,
    restart_postgres,
    start_temporal,
    stop_process,
)
from tallystick.ledger.setup import prepare
from tallystick.services import Endpoints, endpoints_at
from tallystick.settings import (
    SANDBOX_ADMIN_KEY,
    SANDBOX_CLAUDE_KEY,
    SANDBOX_STRIPE_KEY,
    SANDBOX_WEBHOOK_SECRET,
    Settings,
)

START_PATIENCE = 60.0
"""Seconds for the web process to answer, or a worker to work."""


@dataclass
class LocalStack:
    """Running servers, and the processes started on them."""

    home: Path
    database_url: str
    temporal: TemporalServer
    temporal_arguments: Sequence[str]
    claude_url: str | None
    stripe_url: str | None
    sandboxed: frozenset[str]
    """Which stand-ins are used: `claude`, `stripe`."""
    environment: Mapping[str, str]
    """What a process needs to find all of it."""
    workers: list[Process] = field(default_factory=list[Process])
    web: Process | None = None

    async def start_worker(self, *, role: str = "all", **environment: str) -> Process:
        """Start one worker process; its log is `worker.log` in the home folder."""
        with (self.home / "worker.log").open("ab") as log:
            process = await _spawn(
                "workers", "--role", role, log=log, env={**self.environment, **environment}
            )
        self.workers.append(process)
        return process

    async def start_web(self, *, port: int | None = None, **environment: str) -> str:
        """Start the web process, and have a Stripe that stands in send its webhooks there.

        Returns its address, at any free port unless one is given; its log is `web.log` in the home
        folder.
        """
        port = port or free_port()
        address = f"http://127.0.0.1:{port}"
        with (self.home / "web.log").open("ab") as log:
            process = await _spawn(
                "tallystick.web", "--port", str(port),
                log=log,
                env={**self.environment, **environment},
            )  # fmt: skip
        self.web = process
        async with httpx.AsyncClient(timeout=START_PATIENCE) as http:
            await _until_answering(http, f"{address}/health", process, self.home / "web.log")
            if self.stripe_url is not None:
                webhook = {
                    "url": f"{address}/webhooks/stripe",
                    "secret": SANDBOX_WEBHOOK_SECRET,
                }
                told = await http.post(f"{self.stripe_url}/_sandbox/webhooks", json=webhook)
                told.raise_for_status()
        return address

    async def kill_worker(self, process: Process) -> None:
        """End a worker without warning, as a crash would."""
        await stop_process(process, how=signal.SIGKILL)
        self.workers.remove(process)

    def worker_log(self) -> str:
        """Return what the workers have logged so far."""
        log = self.home / "worker.log"
        return log.read_text() if log.exists() else ""

    async def until_working(self, started: int) -> None:
        """Wait until as many workers as have ever been `started` began to work.

        Raises:
            EmbeddedError: when one of those that should run has ended.
        """
        async with asyncio.timeout(START_PATIENCE):
            while self.worker_log().count("working on") < started:
                if any(worker.returncode is not None for worker in self.workers):
                    raise EmbeddedError(f"a worker ended by itself:\n{self.worker_log()}")
                await asyncio.sleep(0.05)

    def endpoints(self, settings: Settings) -> Endpoints:
        """Return where Claude and Stripe are, for a client in this process."""
        return endpoints_at(settings, self.sandboxed, self.claude_url, self.stripe_url)

    def leave_note(self) -> None:
        """Tell other commands on this machine where everything is."""
        DevNote(
            pid=os.getpid(),
            began=began(os.getpid()) or 0,
            temporal_address=self.temporal.address,
            claude_url=self.claude_url if "claude" in self.sandboxed else None,
            stripe_url=self.stripe_url if "stripe" in self.sandboxed else None,
        ).write(self.home)

    async def kill_postgres(self) -> None:
        """End the embedded PostgreSQL without warning."""
        await asyncio.to_thread(kill_postgres, self.home / POSTGRES_FOLDER)

    async def restart_postgres(self) -> None:
        """Start it again on the same data; on return it has recovered."""
        await asyncio.to_thread(restart_postgres, self.home / POSTGRES_FOLDER)

    async def kill_temporal(self) -> None:
        """End the Temporal server without warning."""
        await stop_process(self.temporal.process, how=signal.SIGKILL)

    async def restart_temporal(self) -> None:
        """Start it again on the same history, ending it before if it still runs."""
        port = int(self.temporal.address.rsplit(":", 1)[1])
        ui_port = int(self.temporal.ui_url.rsplit(":", 1)[1]) if self.temporal.ui_url else None
        await self.kill_temporal()
        self.temporal = await start_temporal(
            self.home / "temporal",
            port=port,
            ui_port=ui_port,
            extra_args=self.temporal_arguments,
        )


@asynccontextmanager
async def local_stack(
    settings: Settings,
    *,
    temporal_port: int | None = None,
    ui_port: int | None = None,
    temporal_arguments: Sequence[str] = (),
) -> AsyncGenerator[LocalStack, None]:
    """Run PostgreSQL, Temporal and the wanted stand-ins; everything ends with the context.

    What the settings name already (`DATABASE_URL`, real keys) is used as it is. The server takes
    `temporal_arguments` besides its own, such as `embedded.VIRTUAL_TIME`.

    Raises:
        EmbeddedError: when a server cannot start.
        SettingsError: when the keys are half set.
    """
    wanted = settings.sandboxed
    home = settings.home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        url = settings.database_url or stack.enter_context(
            embedded_postgres(home / POSTGRES_FOLDER)
        )
        await asyncio.to_thread(prepare, url)
        (home / "temporal").mkdir(exist_ok=True)
        temporal = await start_temporal(
            home / "temporal",
            port=temporal_port or free_port(),
            ui_port=ui_port,
            extra_args=temporal_arguments,
        )
        local = LocalStack(home, url, temporal, temporal_arguments, None, None, wanted, {})
        # By way of `local`: a restarted server is another process.
        stack.push_async_callback(lambda: stop_process(local.temporal.process))
        if wanted:
            local.claude_url, local.stripe_url = await stack.enter_async_context(stand_ins(home))
        local.environment = _environment(settings, local, wanted)
        if "stripe" in wanted:
            await _prepare_stripe(settings, local)
        stack.push_async_callback(_stop_processes, local)
        yield local


@asynccontextmanager
async def stand_ins(home: Path) -> AsyncGenerator[tuple[str, str], None]:
    """Serve Claude's and Stripe's stand-ins from a process that logs in `home`; yields where.

    Raises:
        EmbeddedError: when it does not start.
    """
    with (home / "sandbox.log").open("ab") as log:
        process = await _spawn("tallystick.sandbox", log=log, env=os.environ, stdout=PIPE)
    try:
        assert process.stdout is not None  # noqa: S101 - asked for above
        line = await process.stdout.readline()
        if not line:
            raise EmbeddedError(f"the stand-ins did not start; their log is {log.name}")
        where = json.loads(line)
        yield where["claude"], where["stripe"]
    finally:
        await stop_process(process)


async def _prepare_stripe(settings: Settings, local: LocalStack) -> None:
    """Do for the stand-in what `tallystick stripe setup` does for an account."""
    from activities.stripe_catalog import ensure_catalog
    from activities.stripe_clients import stripe_client
    from tallystick.ledger.database import Ledger
    from tallystick.ledger.terms import base_fees_cents

    ledger = Ledger(local.database_url, pool_size=1)
    try:
        async with ledger.begin() as tx:
            fees = await base_fees_cents(tx)
    finally:
        await ledger.close()
    async with stripe_client(local.endpoints(settings), settings) as client:
        await ensure_catalog(client, fees)


def _environment(
    settings: Settings, local: LocalStack, wanted: frozenset[str]
) -> Mapping[str, str]:
    """Return the environment of a child: ours, and where everything is."""
    environment = {
        # Temporal is our own here, whatever namespace or key another one would want.
        **{name: value for name, value in os.environ.items() if not name.startswith("TEMPORAL_")},
        "DATABASE_URL": local.database_url,
        "TEMPORAL_ADDRESS": local.temporal.address,
        "TALLYSTICK_HOME": str(settings.home.absolute()),
    }
    environment.pop("TALLYSTICK_SANDBOX", None)  # answered here, by addresses
    if "claude" in wanted:
        environment["ANTHROPIC_API_KEY"] = SANDBOX_CLAUDE_KEY
        environment["ANTHROPIC_ADMIN_KEY"] = SANDBOX_ADMIN_KEY
        environment["ANTHROPIC_BASE_URL"] = local.claude_url or ""
    if "stripe" in wanted:
        environment["STRIPE_API_KEY"] = SANDBOX_STRIPE_KEY
        environment["STRIPE_API_BASE"] = local.stripe_url or ""
        environment["STRIPE_METER_EVENTS_BASE"] = local.stripe_url or ""
        environment["STRIPE_WEBHOOK_SECRET"] = SANDBOX_WEBHOOK_SECRET
    return environment


async def _spawn(
    module: str,
    *arguments: str,
    log: IO[bytes],
    env: Mapping[str, str],
    stdout: int | None = None,
) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments,
        stdin=DEVNULL,
        stdout=log if stdout is None else stdout,
        stderr=log,
        env=env,
        # Ctrl-C reaches us alone; we stop the others in order.
        start_new_session=True,
    )  # fmt: skip


async def _until_answering(http: httpx.AsyncClient, url: str, process: Process, log: Path) -> None:
    async with asyncio.timeout(START_PATIENCE):
        while process.returncode is None:
            try:
                await http.get(url)
            except httpx.TransportError:
                await asyncio.sleep(0.05)
            else:
                return
    raise EmbeddedError(f"the web process did not start; its log is {log}")


async def _stop_processes(local: LocalStack) -> None:
    running = [*local.workers, *([local.web] if local.web else [])]
    await asyncio.gather(*(stop_process(process, patience=90) for process in running))
