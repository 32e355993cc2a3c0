"""Brings a database to what the code needs: the schema, and the plans that ship as examples.

Safe to repeat, and safe for several processes at once.
"""

import asyncio

from tallystick.ledger import customers
from tallystick.ledger.customers import PlanInForce
from tallystick.ledger.database import Ledger
from tallystick.ledger.migrate import migrate
from tallystick.plans import example_plans


def prepare(url: str) -> str:
    """Migrate the database and add the example plans that are missing; returns its revision.

    Not for use inside a running event loop.

    Raises:
        LedgerUnavailableError: when PostgreSQL is away.
    """
    revision = migrate(url)
    asyncio.run(_add_examples(url))
    return revision


async def _add_examples(url: str) -> None:
    ledger = Ledger(url, pool_size=1)
    try:
        async with ledger.begin() as tx:
            for plan in example_plans():
                await customers.add_plan(tx, PlanInForce(plan.plan, plan.valid_from, plan.terms))
    finally:
        await ledger.close()
