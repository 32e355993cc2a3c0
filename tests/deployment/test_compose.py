"""What can be known about docker-compose.yml without a Docker engine: it names what exists.

The namespace job's script is run as it stands, against a real Temporal server.
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
from tallystick.cli.contents import CONTENTS
from tallystick.embedded import TemporalServer
from tallystick.settings import Settings

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
    (word,) = OURS[name]["command"]
    assert word in CONTENTS


@pytest.mark.parametrize("name", OURS)
def test_our_services_set_variables_that_something_reads(name: str):
    read = {
        alias
        for field in Settings.model_fields.values()
        for alias in getattr(field.validation_alias, "choices", [])
    }
    temporal_s_own = {"TEMPORAL_NAMESPACE"}
    assert OURS[name]["environment"].keys() <= read | temporal_s_own


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


async def test_the_namespace_job_makes_the_namespace_and_may_run_again(
    temporal_server: TemporalServer, temporal: Client
):
    job = SERVICES["temporal-namespace"]
    (script,) = job["command"]
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

    wanted = OURS["worker"]["environment"]["TEMPORAL_NAMESPACE"]
    made = await temporal.workflow_service.describe_namespace(
        DescribeNamespaceRequest(namespace=wanted)
    )
    assert made.config.workflow_execution_retention_ttl.ToTimedelta().days == 30
