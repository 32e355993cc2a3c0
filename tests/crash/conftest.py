"""One stack for each module: what it costs to start is shared, what a test breaks it mends."""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.crash.drill import Drill, drill


@pytest_asyncio.fixture(scope="module")
async def stack() -> AsyncIterator[Drill]:
    # Not in pytest's own folder: the next pytest run on this machine closes that to all but its
    # owner, and PostgreSQL may run as another user.
    with tempfile.TemporaryDirectory(prefix="tallystick-", ignore_cleanup_errors=True) as home:
        async with drill(Path(home)) as running:
            yield running
