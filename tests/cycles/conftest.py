"""A Temporal server whose workflows' clocks can be moved on, for all tests of cycles."""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from temporalio.client import Client as TemporalClient

from tallystick.embedded import VIRTUAL_TIME, TemporalServer, embedded_temporal
from tallystick.temporal import connect_temporal


@pytest_asyncio.fixture(scope="session")
async def virtual_server() -> AsyncIterator[TemporalServer]:
    """A real Temporal server with virtual time."""
    with tempfile.TemporaryDirectory(prefix="tallystick-") as folder:
        async with embedded_temporal(Path(folder), extra_args=VIRTUAL_TIME) as server:
            yield server


@pytest_asyncio.fixture
async def virtual_temporal(virtual_server: TemporalServer) -> TemporalClient:
    """A client of it with the product's own data converter."""
    return await connect_temporal(virtual_server.address)
