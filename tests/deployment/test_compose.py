"""What can be known about docker-compose.yml without a Docker engine: it names what exists.

The jobs that set up, the web process and its health check are run as they stand, against real
servers.
"""

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client

from tallystick import embedded
from tallystick.cli.contents import CONTENTS, load
from tallystick.embedded import TemporalServer, free_port, stop_process
from tallystick.settings import Settings
from tests.cli.shell import Shell, until_said
from workers.health import Health, health_app

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


def test_every_image_is_pinned_to_a_version():
    base = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for image in [*base, *(service["image"] for service in SERVICES.values())]:
        assert re.fullmatch(r"[a-z/-]+:\d+\.\d+.*", image), image


def test_services_wait_only_for_services_that_exist():
    for service in SERVICES.values():
        assert set(service.get("depends_on", ())) <= SERVICES.keys()


@pytest.mark.parametrize("name", OURS)
def test_our_services_run_commands_that_the_command_line_has(name: str):
    word, *options = OURS[name]["command"]
    assert word in CONTENTS
    load(word).make_context(word, options)  # raises for an option that there is not


@pytest.mark.parametrize("name", OURS)
def test_our_services_set_variables_that_something_reads(name: str):
    read = {
        alias
        for name, field in Settings.model_fields.items()
        for alias in getattr(field.validation_alias, "choices", [f"TALLYSTICK_{name}".upper()])
    }
    temporal_s_own = {"TEMPORAL_NAMESPACE"}
    assert OURS[name]["environment"].keys() <= read | temporal_s_own


def test_ports_are_published_on_loopback_alone():
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(published) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_a_worker_is_probed_where_it_answers():
    worker = OURS["worker"]
    probed = re.search(r"http://127.0.0.1:(\d+)(/\w+)", worker["healthcheck"]["test"][-1])
    assert probed is not None
    assert probed[1] == worker["environment"]["TALLYSTICK_HEALTH_PORT"]
    assert probed[2] in {getattr(route, "path", "") for route in health_app(Health()).routes}


def test_our_image_runs_the_command_line_as_an_ordinary_user():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert 'ENTRYPOINT ["tallystick"]' in lines
    assert lines.index("USER tallystick") < lines.index('ENTRYPOINT ["tallystick"]')
    copied = {word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]}
    assert all((ROOT / name).exists() for name in copied)


def test_the_server_is_configured_as_the_embedded_one_is():
    content = yaml.safe_load(COMPOSE["configs"]["temporal-dynamic-config"]["content"])
    values = {key: str(entries[0]["value"]).lower() for key, entries in content.items()}
    assert values == embedded._DYNAMIC_CONFIG
    (mounted,) = SERVICES["temporal"]["configs"]
    assert mounted["target"] == SERVICES["temporal"]["environment"]["DYNAMIC_CONFIG_FILE_PATH"]


async def test_the_jobs_prepare_a_namespace_and_may_run_again(
    temporal_server: TemporalServer, temporal: Client, database_url: str, tmp_path: Path
):
    job = SERVICES["temporal-namespace"]
    (script,) = job["command"]
    namespace = OURS["setup"]["environment"]["TEMPORAL_NAMESPACE"]
    shell = Shell(
        tmp_path / "home",
        DATABASE_URL=database_url,
        TEMPORAL_ADDRESS=temporal_server.address,
        TEMPORAL_NAMESPACE=namespace,
    )
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(
            *job["entrypoint"],
            script.replace("$$", "$"),
            env={
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "TEMPORAL_ADDRESS": temporal_server.address,
            },
            stdout=asyncio.subprocess.DEVNULL,
        )
        assert await process.wait() == 0
        told = (await shell(*OURS["setup"]["command"], "--json")).json

    made = await temporal.workflow_service.describe_namespace(
        DescribeNamespaceRequest(namespace=namespace)
    )
    assert made.config.workflow_execution_retention_ttl.ToTimedelta().days == 30
    assert told["search_attributes_added"] == []  # the first run has added them
    assert told["schedules"]
    there = await Client.connect(temporal_server.address, namespace=namespace)
    for schedule in told["schedules"]:
        spec = (await there.get_schedule_handle(schedule).describe()).schedule.spec
        assert spec.intervals or spec.calendars


async def test_the_web_process_is_healthy_where_it_listens(database_url: str, tmp_path: Path):
    web, port = OURS["web"], str(free_port())
    assert web["ports"] == ["127.0.0.1:8080:8080"]
    serve = [port if word == "8080" else word for word in web["command"]]
    assert port in serve
    how, *check = [word.replace(":8080/", f":{port}/") for word in web["healthcheck"]["test"]]
    assert how == "CMD"

    async def healthy() -> bool:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *check[1:], stderr=asyncio.subprocess.DEVNULL
        )
        return await process.wait() == 0

    assert check[0] == "python"
    assert not await healthy()
    shell = Shell(
        tmp_path / "home", DATABASE_URL=database_url, TEMPORAL_ADDRESS=f"127.0.0.1:{free_port()}"
    )
    process = await shell.start(*serve)
    try:
        await until_said(process, "serving on")
        assert await healthy()
    finally:
        await stop_process(process)
