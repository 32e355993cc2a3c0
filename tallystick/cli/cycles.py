"""A customer's account cycle as commands meet it: told of what they changed, asked what comes next.

A command first commits its change to the ledger, and tells the cycle afterwards. The cycle reads
everything from there, so what is told while Temporal is away is only heard later.
"""

import asyncio
from datetime import UTC, datetime, timedelta

from temporalio.exceptions import TemporalError

from tallystick.cli.access import with_ledger
from tallystick.cli.output import note
from tallystick.contracts import Agenda, News, cycle_workflow_id
from tallystick.errors import UnavailableError
from tallystick.ledger.agenda import account_view
from tallystick.ledger.database import Ledger
from tallystick.plans.agenda import agenda
from tallystick.temporal import connect_temporal

_ANSWER = timedelta(seconds=5)
"""A query is answered by a worker, within milliseconds; without one nobody answers it."""


def tell_cycle(customer: str) -> None:
    """Tell the customer's cycle that something changed, starting it where it does not run."""
    from activities.waking import wake

    async def tell() -> None:
        await wake(await connect_temporal(), customer, News())

    try:
        asyncio.run(tell())
    except (UnavailableError, TemporalError):
        note(
            "all is recorded, but no Temporal answers: once one does, the sweep sees to the "
            f"account, and `tallystick customer open {customer}` has it looked at at once"
        )


def what_next(customer: str) -> Agenda:
    """Return what the customer's account waits for: as its cycle says, or else as the ledger does.

    The cycle knows more: which steps had to be put off, and why.
    """

    async def ask() -> Agenda:
        client = await connect_temporal()
        cycle = client.get_workflow_handle(cycle_workflow_id(customer))
        return await cycle.query("what_next", result_type=Agenda, rpc_timeout=_ANSWER)

    try:
        return asyncio.run(ask())
    except (UnavailableError, TemporalError):
        note("the account's cycle does not answer; what is next is worked out from the ledger")
        return with_ledger(lambda ledger: _worked_out(ledger, customer))


async def _worked_out(ledger: Ledger, customer: str) -> Agenda:
    now = datetime.now(UTC)
    view = await account_view(ledger, customer, now)
    assert view is not None  # noqa: S101 - the caller has found the customer
    return agenda(view, now)
