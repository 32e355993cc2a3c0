"""One stack for each module: what it costs to start is shared, what a test breaks it mends."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.crash.drill import Drill, drill


@pytest_asyncio.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Drill]:
    home: Path = tmp_path_factory.mktemp("drill")
    async with drill(home) as running:
        yield running
