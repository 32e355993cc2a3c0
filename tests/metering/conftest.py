"""Stands of both transports."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tallystick.ledger.database import Ledger
from tests.metering.stand import MeteringStand, metering_stand


@pytest_asyncio.fixture(params=["stream", "events"])
async def stand(request: pytest.FixtureRequest, ledger: Ledger) -> AsyncIterator[MeteringStand]:
    """One stand per transport."""
    async with metering_stand(ledger, request.param) as made:
        yield made


@pytest_asyncio.fixture
async def streaming(ledger: Ledger) -> AsyncIterator[MeteringStand]:
    """A stand whose events go by the stream."""
    async with metering_stand(ledger, "stream") as made:
        yield made


@pytest_asyncio.fixture
async def singly(ledger: Ledger) -> AsyncIterator[MeteringStand]:
    """A stand whose events go one by one."""
    async with metering_stand(ledger, "events", event_seconds=0.01) as made:
        yield made
