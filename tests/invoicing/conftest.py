"""The books of one customer, on both sides."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tallystick.ledger.database import Ledger
from tests.invoicing.stand import Books, invoicing_stand


@pytest_asyncio.fixture
async def books(ledger: Ledger) -> AsyncIterator[Books]:
    """Books that are empty yet."""
    async with invoicing_stand(ledger) as made:
        yield made
