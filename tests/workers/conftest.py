"""One stack with one worker in it that is watched in every way there is."""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.crash.drill import Drill, drill
from tests.workers.monitor import Watched

KEY = "sk-ant-planted-in-a-key"


@pytest_asyncio.fixture(scope="module")
async def stack() -> AsyncIterator[Drill]:
    # Not in pytest's own folder, under which PostgreSQL could not run as another user.
    with tempfile.TemporaryDirectory(prefix="tallystick-", ignore_cleanup_errors=True) as home:
        async with drill(Path(home)) as running:
            yield running


@pytest_asyncio.fixture(scope="module")
async def watched(stack: Drill) -> Watched:
    return await Watched.start(stack, ANTHROPIC_API_KEY=KEY)
