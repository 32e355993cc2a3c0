"""A house and a terminal beside it, which finds everything by settings, as an operator's does."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import Client as TemporalClient
from typer.testing import CliRunner

from tallystick.cli.app import app
from tallystick.embedded import TemporalServer
from tallystick.sandbox.remote import Control
from tallystick.settings import SANDBOX_CLAUDE_KEY, SANDBOX_STRIPE_KEY
from tests.invoicing.conftest import books  # noqa: F401 - a fixture
from tests.support.house import PATIENCE, House, open_house

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Desk:
    """Where an operator sits."""

    house: House
    opened: datetime

    async def __call__(self, *command: str, fails: bool = False) -> str:
        """Run a command; returns all that it said."""
        told = await asyncio.to_thread(CliRunner().invoke, app, command)
        assert (told.exit_code != 0) is fails, told.output
        return told.output

    async def stuck(self, *options: str) -> dict[str, dict[str, Any]]:
        """Return all that waits, by name."""
        told = await asyncio.to_thread(
            CliRunner().invoke, app, ["stuck", "--minutes", "0", "--json", *options]
        )
        assert told.exit_code == 0, told.output
        rows = json.loads(told.stdout)
        return {row["subject"]: row for row in rows}

    async def until_stuck(self, wanted: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """Wait until exactly these are listed, each as what it is; returns the rows."""
        async with asyncio.timeout(PATIENCE):
            while True:
                rows = await self.stuck()
                if {name: row["what"] for name, row in rows.items()} == wanted:
                    return rows
                await asyncio.sleep(0.2)

    async def found(self, query: str) -> set[str]:
        """Return the ids of the workflows that a query of the Web UI finds.

        The server is that of many tests; what was there before the desk was opened is left out.
        """
        query = f"({query}) AND StartTime >= '{self.opened.isoformat()}'"
        return {each.id async for each in self.house.temporal.list_workflows(query)}


def _address(of: Control) -> str:
    return str(of._http.base_url)


@pytest_asyncio.fixture
async def desk(
    temporal: TemporalClient,
    temporal_server: TemporalServer,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Desk]:
    opened = datetime.now(UTC)
    async with open_house(temporal, database_url, f"stuck-{next(_numbers)}") as house:
        for name, value in {
            "DATABASE_URL": database_url,
            "TEMPORAL_ADDRESS": temporal_server.address,
            "ANTHROPIC_API_KEY": SANDBOX_CLAUDE_KEY,
            "ANTHROPIC_BASE_URL": _address(house.claude),
            "STRIPE_API_KEY": SANDBOX_STRIPE_KEY,
            "STRIPE_API_BASE": _address(house.stripe),
            "STRIPE_METER_EVENTS_BASE": _address(house.stripe),
            "TALLYSTICK_SUMMARIES_SETTLE": "0",
        }.items():
            monkeypatch.setenv(name, value)
        yield Desk(house, opened)
