"""`tallystick setup`, `dev` and `worker`: prepare the servers, and run what serves requests."""

import asyncio
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from secrets import token_urlsafe
from typing import Annotated

import typer

from tallystick.cli.output import JsonFlag, fail, note, print_json
from tallystick.embedded import free_port
from tallystick.errors import TallystickError, UnavailableError
from tallystick.ledger.setup import prepare
from tallystick.local import LocalStack, local_stack
from tallystick.logs import configure_logging
from tallystick.schedules import ensure_schedules
from tallystick.services import DevNote, database
from tallystick.settings import Settings, SettingsError, get_settings
from tallystick.temporal import connect_temporal, ensure_search_attributes


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.command()(setup)
    app.command()(dev)
    app.command()(worker)


def setup(as_json: bool = JsonFlag) -> None:
    """Bring database and Temporal to what this version needs. Safe to repeat."""
    with database(get_settings()) as url:
        revision = prepare(url)
    added, schedules = asyncio.run(_set_up_temporal())
    if as_json:
        print_json(
            {
                "database_revision": revision,
                "search_attributes_added": added,
                "schedules": schedules,
            }
        )
        return
    note(f"database: revision {revision}")
    note(f"temporal: search attributes {', '.join(added) + ' added' if added else 'in place'}")
    note(f"temporal: schedules in place: {', '.join(schedules)}")


async def _set_up_temporal() -> tuple[list[str], list[str]]:
    client = await connect_temporal()
    return await ensure_search_attributes(client), await ensure_schedules(client)


def worker(
    role: Annotated[
        str, typer.Option(help="all, requests (workflows and metering) or claude (Claude calls).")
    ] = "all",
) -> None:
    """Run one worker process until it is told to stop."""
    from workers.main import Role, run_worker

    if role != "all" and role not in list(Role):
        fail(f"--role: {role!r} is no role; use all, {', '.join(Role)}")
    configure_logging(get_settings().log_format)
    asyncio.run(run_worker(get_settings(), list(Role) if role == "all" else [Role(role)]))


def dev(
    port: Annotated[int, typer.Option(help="Temporal's port.", min=1, max=65535)] = 7233,
    ui_port: Annotated[
        int, typer.Option(help="The port of Temporal's Web UI.", min=1, max=65535)
    ] = 8233,
    workers: Annotated[
        int,
        typer.Option(
            help="Worker processes; each further one answers monitors at the next port.", min=1
        ),
    ] = 1,
) -> None:
    """Run everything on this machine: servers, stand-ins, workers.

    Temporal with its Web UI, PostgreSQL unless DATABASE_URL names yours, and stand-ins for Claude
    and Stripe where their keys are not set.
    """
    asyncio.run(_dev(port, ui_port, workers))


async def _dev(port: int, ui_port: int, workers: int) -> None:
    settings = get_settings()
    running = DevNote.read(settings.home)
    if running is not None:
        raise UnavailableError(
            f"`tallystick dev` runs already in {settings.home} (process {running.pid}); stop it "
            "or set TALLYSTICK_HOME to another folder"
        )
    monitored = _monitor_ports(settings, workers)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    codec = _codec_beside(settings, ui_port)
    async with local_stack(
        settings, temporal_port=port, ui_port=ui_port, temporal_arguments=codec.temporal_arguments
    ) as local:
        for ports in monitored:
            await local.start_worker(**ports)
        await ensure_schedules(await connect_temporal(local.temporal.address))
        web = None
        if "stripe" in local.sandboxed:
            web = await local.start_web(port=codec.port, **codec.environment)
        local.leave_note()
        _introduce(local, web)
        watching = [asyncio.create_task(process.wait()) for process in local.workers]
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([*watching, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            raise TallystickError(
                f"a worker ended by itself; its log is {local.home / 'worker.log'}"
            )
        note("stopping")


def _monitor_ports(settings: Settings, workers: int) -> Sequence[Mapping[str, str]]:
    """Return where each worker answers monitors: the first at the ports set, others at the next.

    Raises:
        SettingsError: when a port would be taken for both.
    """
    asked = {
        "TALLYSTICK_METRICS_PORT": settings.metrics_port,
        "TALLYSTICK_HEALTH_PORT": settings.health_port,
    }
    first = {variable: port for variable, port in asked.items() if port is not None}
    taken = {port + number for port in first.values() for number in range(workers)}
    if len(taken) < len(first) * workers:
        raise SettingsError(
            f"{' and '.join(first)} must be {workers} or more apart: each of the {workers} workers "
            "takes the next port after the one before it"
        )
    return [
        {variable: str(port + number) for variable, port in first.items()}
        for number in range(workers)
    ]


@dataclass(frozen=True, slots=True)
class _Codec:
    """How Temporal's Web UI reads encrypted payloads: from our web process, under a token."""

    port: int | None = None
    temporal_arguments: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


def _codec_beside(settings: Settings, ui_port: int) -> _Codec:
    """Choose where the web process will be, which Temporal has to be told when it starts.

    Only beside a Stripe that stands in: with a real one the web process is started by its owner.
    """
    if not settings.payload_keys or "stripe" not in settings.sandboxed:
        return _Codec()
    port = free_port()
    token = settings.codec_token.get_secret_value() if settings.codec_token else token_urlsafe()
    pages = [f"http://{host}:{ui_port}" for host in ("127.0.0.1", "localhost")]
    return _Codec(
        port,
        ("--ui-codec-endpoint", f"http://127.0.0.1:{port}/codec/{token}"),
        {
            "TALLYSTICK_CODEC_TOKEN": token,
            "TALLYSTICK_CODEC_ORIGINS": ",".join([*pages, *settings.codec_origins]),
        },
    )


def _introduce(local: LocalStack, web: str | None) -> None:
    if local.sandboxed:
        names = " and ".join(sorted(name.capitalize() for name in local.sandboxed))
        note(f"the sandbox stands in for {names}: no keys are used, nothing is charged")
    note(f"Temporal    {local.temporal.address}")
    note(f"Web UI      {local.temporal.ui_url}")
    note(f"webhooks    {web or 'run `tallystick web`, with STRIPE_WEBHOOK_SECRET set'}")
    # An address that we were given may hold a password.
    given = get_settings().database_url is not None
    note(f"PostgreSQL  {'where DATABASE_URL says' if given else local.database_url}")
    note(f"logs        {local.home}")
    note("")
    note("try, in another terminal:")
    note("  tallystick customer add acme")
    note('  tallystick request acme "What is a tally stick?"')
    note("Ctrl-C stops everything; the data stays.")
