"""A house for each test, with a customer of the test's own."""

import itertools
from collections.abc import AsyncIterator

import pytest_asyncio
from temporalio.client import Client as TemporalClient

from tests.support.house import House, open_house

_numbers = itertools.count(1)


@pytest_asyncio.fixture
async def house(temporal: TemporalClient, database_url: str) -> AsyncIterator[House]:
    async with open_house(temporal, database_url, f"capped-{next(_numbers)}") as opened:
        yield opened
