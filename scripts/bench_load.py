"""Whom the benchmarks ask for, and what they ask: a few customers known to Stripe, small requests.

Each body names its request, so no two are alike, and a request is its customer's for ever.
"""

from typing import Any

from activities.stripe_catalog import create_customer
from activities.stripe_clients import stripe_client
from tallystick.ledger import customers
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Customer
from tallystick.local import LocalStack
from tallystick.settings import Settings

MODEL = "claude-haiku-5-5"
CUSTOMERS = 5


def body(name: str) -> dict[str, Any]:
    """Return the Messages API parameters of a request."""
    return {
        "model": MODEL,
        "max_tokens": 200,
        "messages": [{"role": "user", "content": f"<{name}> What is a tally stick? " * 10}],
    }


def customer(name: str) -> str:
    """Return whose request it is."""
    return f"bench-{sum(name.encode()) % CUSTOMERS}"


async def add_customers(local: LocalStack, settings: Settings) -> None:
    """Add all of them to the ledger and to Stripe."""
    ledger = Ledger(local.database_url, pool_size=1)
    async with stripe_client(local.endpoints(settings), settings) as stripe:
        for number in range(CUSTOMERS):
            name = f"bench-{number}"
            mapped = await create_customer(stripe, name, name)
            row = Customer(
                customer_id=name, name=name, plan="pass-through", stripe_customer_id=mapped
            )
            async with ledger.begin() as tx:
                await customers.add(tx, row)
    await ledger.close()
