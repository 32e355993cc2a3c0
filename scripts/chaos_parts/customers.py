"""Customers on the plan pass-through, here and in Stripe, for drills."""

from collections.abc import Iterable

from activities.stripe_catalog import create_customer
from activities.stripe_clients import stripe_client
from tallystick.ledger import customers
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Customer
from tallystick.local import LocalStack
from tallystick.settings import Settings


async def add_customers(local: LocalStack, settings: Settings, names: Iterable[str]) -> None:
    """Add a customer under each of the names."""
    ledger = Ledger(local.database_url, pool_size=1)
    try:
        async with stripe_client(local.endpoints(settings), settings) as stripe:
            for name in names:
                mapped = await create_customer(stripe, name, name)
                row = Customer(
                    customer_id=name, name=name, plan="pass-through", stripe_customer_id=mapped
                )
                async with ledger.begin() as tx:
                    await customers.add(tx, row)
    finally:
        await ledger.close()
