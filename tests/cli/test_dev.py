"""`tallystick dev`: one command starts everything, other terminals find it, and nothing is left."""

import asyncio
import base64
import re
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from socket import socket

import httpx
import psutil
from google.protobuf.json_format import MessageToDict
from temporalio.api.common.v1 import Payloads

from tallystick.embedded import free_port, postgres_pid
from tallystick.payloads.converter import data_converter
from tallystick.payloads.keys import Keyring
from tallystick.services import POSTGRES_FOLDER
from tests.cli.shell import PATIENCE, SECRET, Shell, told_by, until_said


async def test_everything_runs_is_found_from_elsewhere_and_stops_with_ctrl_c(shell: Shell) -> None:
    async with running(shell) as (dev, said):
        assert "the sandbox stands in for Claude and Stripe: no keys are used" in said
        family = [*family_of(dev), psutil.Process(postgres_pid(shell.home / POSTGRES_FOLDER))]
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
            f"`tallystick dev` runs already in {shell.home} (process {dev.pid}"
        )

        dev.send_signal(signal.SIGINT)
        assert (await told_by(dev)).code == 0
        assert still_running(family) == []
    # The data stays, and the note of a process that is gone sends nobody anywhere.
    assert (await shell("customer", "list", "--json")).json == [added]


async def test_it_uses_a_database_it_is_given_and_stops_when_told_to(
    shell: Shell, bare_database: str
) -> None:
    given = f"{bare_database}&password={SECRET}"
    health = two_ports()
    variables = {"DATABASE_URL": given, "TALLYSTICK_HEALTH_PORT": str(health)}
    async with running(shell, "--workers", "2", **variables) as (dev, said):
        assert "PostgreSQL  where DATABASE_URL says" in said
        assert SECRET not in said
        assert not (shell.home / POSTGRES_FOLDER).exists()
        family = family_of(dev)
        assert (await shell("customer", "list", "--json", DATABASE_URL=given)).json == []
        for port in (health, health + 1):  # each worker has one of its own
            await until_ready(port)
        dev.send_signal(signal.SIGTERM)
        assert (await told_by(dev)).code == 0
        assert still_running(family) == []


async def test_with_keys_its_web_ui_is_told_where_payloads_are_decoded(
    shell: Shell, bare_database: str
) -> None:
    keys = f"a:{base64.b64encode(bytes(32)).decode()}"
    async with running(shell, DATABASE_URL=bare_database, TALLYSTICK_PAYLOAD_KEYS=keys) as (
        _,
        said,
    ):
        (ui,) = re.findall(r"Web UI +(http\S+)", said)
        async with httpx.AsyncClient(headers={"Origin": ui}, timeout=60) as page:
            settings = (await page.get(f"{ui}/api/v1/settings")).json()
            endpoint = settings["Codec"]["Endpoint"]
            sealed = await data_converter(Keyring.parse([keys])).encode(["a hazel rod"])
            body = MessageToDict(Payloads(payloads=sealed))
            answer = await page.post(f"{endpoint}/decode?preserveStorageRefs=true", json=body)
            assert answer.headers["access-control-allow-origin"] == ui
            (shown,) = answer.json()["payloads"]
            assert base64.b64decode(shown["data"]) == b'"a hazel rod"'
            refused = await page.post(f"{endpoint}x/decode", json=body)
            assert refused.status_code == 401


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


async def test_workers_that_would_take_each_others_ports_are_refused(shell: Shell) -> None:
    ports = {"TALLYSTICK_METRICS_PORT": "9464", "TALLYSTICK_HEALTH_PORT": "9465"}
    told = await shell.attempt("dev", "--workers", "2", **ports)
    assert told.error.startswith(
        "TALLYSTICK_METRICS_PORT and TALLYSTICK_HEALTH_PORT must be 2 or more apart: "
    )


@asynccontextmanager
async def running(
    shell: Shell, *options: str, **variables: str
) -> AsyncIterator[tuple[Process, str]]:
    ports = {"--port": free_port(), "--ui-port": free_port()}
    dev = await shell.start("dev", *options, *_options(ports), **variables)
    try:
        yield dev, await until_said(dev, "Ctrl-C stops everything")
    finally:
        if dev.returncode is None:
            dev.terminate()
            await asyncio.wait_for(dev.wait(), 60)


def two_ports() -> int:
    """Return a free port whose next one is free too."""
    while True:
        port = free_port()
        with closing(socket()) as after, suppress(OSError, OverflowError):
            after.bind(("127.0.0.1", port + 1))
            return port


async def until_ready(port: int) -> None:
    async with asyncio.timeout(PATIENCE), httpx.AsyncClient() as http:
        while True:
            with suppress(httpx.TransportError):
                if (await http.get(f"http://127.0.0.1:{port}/ready")).is_success:
                    return
            await asyncio.sleep(0.1)


def family_of(dev: Process) -> list[psutil.Process]:
    """Return it and whatever it has started, the PostgreSQL excepted, which is nobody's child."""
    root = psutil.Process(dev.pid)
    return [root, *root.children(recursive=True)]


def still_running(family: list[psutil.Process]) -> list[psutil.Process]:
    return [each for each in family if each.is_running() and each.status() != "zombie"]


def _options(ports: dict[str, int]) -> list[str]:
    return [text for name, port in ports.items() for text in (name, str(port))]
