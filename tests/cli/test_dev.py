"""`tallystick dev`: one command starts everything, other terminals find it, and nothing is left.

One home for the whole module: what the first run keeps, the second finds.
"""

import asyncio
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from socket import socket

import psutil
import pytest

from tallystick.embedded import free_port, postgres_pid
from tallystick.services import POSTGRES_FOLDER
from tests.cli.shell import Shell, told_by, until_said


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dev") / "home"


async def test_everything_runs_is_found_from_elsewhere_and_stops_with_ctrl_c(home: Path) -> None:
    shell = Shell(home)
    async with running(shell) as (dev, said):
        assert "the sandbox stands in for Claude and Stripe: no keys are used" in said
        family = everything(dev, home)
        assert len(family) >= 5  # itself, Temporal, the stand-ins, a worker, PostgreSQL

        added = (await shell("customer", "add", "acme", "--json")).json
        asked = await shell("request", "acme", "What is a tally stick?", "--json")
        assert asked.json["bill"]["status"] == "priced"
        prepared = await shell("stripe", "setup", "--json")
        assert prepared.json["made"] == []  # the very account that `dev` has prepared
        (used,) = (await shell("usage", "--json")).json
        assert used["charge_usd"] == asked.json["bill"]["charge_usd"]

        second = await shell.attempt("dev", "--port", str(free_port()))
        assert second.error.startswith(
            f"`tallystick dev` runs already in {home} (process {dev.pid}"
        )

        dev.send_signal(signal.SIGINT)
        assert (await told_by(dev)).code == 0
        assert still_running(family) == []
    # The data stays, and the note of a process that is gone sends nobody anywhere.
    assert (await shell("customer", "list", "--json")).json == [added]


async def test_it_starts_again_on_its_data_and_stops_when_told_to(home: Path) -> None:
    shell = Shell(home)
    async with running(shell) as (dev, _):
        family = everything(dev, home)
        assert (await shell("usage", "--json")).json != []
        dev.send_signal(signal.SIGTERM)
        assert (await told_by(dev)).code == 0
        assert still_running(family) == []


async def test_a_port_that_is_taken_is_named_and_nothing_is_left(shell: Shell, postgres) -> None:
    with closing(socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = {"--port": port, "--ui-port": free_port()}
        told = await shell.attempt("dev", *_options(ports), DATABASE_URL=postgres)
        assert told.error.startswith(f"port {port} for Temporal is taken; ")
        ports = {"--port": free_port(), "--ui-port": port}
        told = await shell.attempt("dev", *_options(ports), DATABASE_URL=postgres)
        assert told.error.startswith(f"port {port} for the Web UI is taken; ")
    assert not any(shell.home.glob("dev.json"))


@asynccontextmanager
async def running(shell: Shell) -> AsyncIterator[tuple[Process, str]]:
    ports = {"--port": free_port(), "--ui-port": free_port()}
    dev = await shell.start("dev", *_options(ports))
    try:
        yield dev, await until_said(dev, "Ctrl-C stops everything")
    finally:
        if dev.returncode is None:
            dev.terminate()
            await asyncio.wait_for(dev.wait(), 60)


def everything(dev: Process, home: Path) -> list[psutil.Process]:
    """Return the processes that run because `dev` does."""
    root = psutil.Process(dev.pid)
    postgres = postgres_pid(home / POSTGRES_FOLDER)
    assert postgres is not None
    return [root, *root.children(recursive=True), psutil.Process(postgres)]


def still_running(family: list[psutil.Process]) -> list[psutil.Process]:
    return [each for each in family if each.is_running() and each.status() != "zombie"]


def _options(ports: dict[str, int]) -> list[str]:
    return [text for name, port in ports.items() for text in (name, str(port))]
