"""One house for each module; its jobs have ids of their own, and each test begins in order."""

import itertools
from collections.abc import AsyncIterator

import psycopg
import pytest_asyncio
from psycopg import sql

from tallystick.embedded import TemporalServer
from tallystick.temporal import connect_temporal
from tests.batches.stand import Jobs, open_jobs

_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="module")
async def house_of_jobs(postgres: str, temporal_server: TemporalServer) -> AsyncIterator[Jobs]:
    name = f"batches_{next(_numbers)}"
    plain = postgres.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(plain, autocommit=True) as connection:
        made = sql.SQL("CREATE DATABASE {} TEMPLATE template_tallystick")
        connection.execute(made.format(sql.Identifier(name)))
    temporal = await connect_temporal(temporal_server.address)
    url = postgres.replace("/postgres?", f"/{name}?")
    async with open_jobs(temporal, url, batch_requests=50) as jobs:
        yield jobs


@pytest_asyncio.fixture
async def jobs(house_of_jobs: Jobs) -> AsyncIterator[Jobs]:
    """Jobs in batches of 50 requests, at a provider that works at once."""
    yield house_of_jobs
    await house_of_jobs.house.claude.disarm()
    await house_of_jobs.pace(items_per_second=50_000, in_flight=100, hidden_for=0)
