"""Every path through the billing cycle, each in a town of its own and with virtual time.

A path is called with the name of its customer, which is its own. It returns the run that shows what
it is about: of an account whose period has moved on, that may be the run before.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.client import WorkflowFailureError, WorkflowHandle

from activities.waking import wake
from tallystick.contracts import News, cycle_workflow_id
from tallystick.ledger import customers
from tallystick.ledger.tables import Customer
from tallystick.plans.periods import billing_period
from tests.cycles.town import Town, open_town
from tests.replay.stage import Stage

Run = WorkflowHandle[Any, Any]
Path = Callable[[Town, str], Awaitable[Run]]

# Ahead of every clock: virtual time only goes forward.
ANCHOR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(days=1)
END = billing_period(ANCHOR, "UTC", 1).end
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
MILLION = 1_000_000

GOOD, DECLINED = "pm_card_visa", "pm_card_chargeDeclined"


async def subscription_period_closed(town: Town, name: str) -> Run:
    await town.plan(name, model="hybrid", markup="0.2", base_fee_usd="99", allowance={"usd": "20"})
    first = await _opened(town, name)
    await _uses(town, name, ANCHOR + 3 * DAY)
    await town.to(END + HOUR)
    assert (await town.statement(name, 1)).due_cents == 115_00
    return first


async def prepaid_period_with_a_top_up(town: Town, name: str) -> Run:
    await town.plan(name, model="prepaid", top_up={"below_usd": "10", "amount_usd": "50"})
    first = await _opened(town, name)
    await _uses(town, name, ANCHOR + DAY)
    await town.to(END + HOUR)
    wallet = (await town.statement(name, 1)).wallet
    assert wallet is not None
    assert wallet.closing_usd == 20
    return first


async def close_that_waited_for_usage(town: Town, name: str) -> Run:
    await town.plan(name, model="pass-through")
    first = await _opened(town, name)
    await _uses(town, name, ANCHOR + DAY, metered=False)
    await town.to(END + 20 * MINUTE)
    assert (await town.time.agenda(name)).period_end == END
    await town.meter()
    await town.to(END + HOUR)
    assert (await town.time.agenda(name)).period_start == END
    return first


async def grace_suspension_and_restoration(town: Town, name: str) -> Run:
    await town.plan(name, model="pass-through")
    await _opened(town, name, card=DECLINED)
    await _uses(town, name, ANCHOR + DAY)
    await town.to(END + 2 * HOUR)
    assert (await town.time.agenda(name)).state == "grace"
    # Three days, and on to Monday evening where they end on a weekend.
    await town.to(END + 6 * DAY)
    assert (await town.time.agenda(name)).state == "suspended"
    await town.give_card(name, GOOD)
    await town.time.settle()
    assert (await town.time.agenda(name)).state == "active"
    return await _this_run(town, name)


async def put_off_twice_and_retried(town: Town, name: str) -> Run:
    rule = {"fault": "refused", "match": "POST /v1/subscriptions?", "times": 2}
    (await town.control.post("/_sandbox/faults", json={"rules": [rule]})).raise_for_status()
    await town.plan(name, model="pass-through")
    run = await _opened(town, name)
    await town.to(ANCHOR + 15 * MINUTE)
    assert (await town.time.agenda(name)).state == "stuck"
    await run.signal("retry_now")
    await town.time.settle()
    assert (await town.time.agenda(name)).state == "active"
    return run


async def account_ended(town: Town, name: str) -> Run:
    await town.plan(name, model="pass-through")
    first = await _opened(town, name)
    await _ends(town, name, ANCHOR + 5 * DAY)
    assert (await town.time.agenda(name)).state == "ended"
    return first


async def ended_and_paid_afterwards(town: Town, name: str) -> Run:
    await town.plan(name, model="pass-through")
    await _opened(town, name, card=DECLINED)
    await _ends(town, name, ANCHOR + 5 * DAY)
    last = await _this_run(town, name)
    await town.give_card(name, GOOD)
    await last.result()
    return last


async def without_an_account(town: Town, name: str) -> Run:
    async with town.ledger.begin() as tx:
        await customers.add(tx, Customer(customer_id=name, name=name, plan="pass-through"))
    await wake(town.temporal, name, News())
    assert (await town.time.agenda(name)).dues == ()
    await wake(town.temporal, name, News())
    assert (await town.time.agenda(name)).dues == ()
    return await _this_run(town, name)


async def unknown_customer(town: Town, name: str) -> Run:
    await wake(town.temporal, name, News())
    run = await _this_run(town, name)
    with suppress(WorkflowFailureError):
        await run.result()
    return run


async def _opened(town: Town, name: str, card: str = GOOD) -> Run:
    """Open an account on the plan of its own name; returns the run of its first period."""
    await town.open(name, name, ANCHOR, card=card)
    run = await _this_run(town, name)
    await town.to(ANCHOR + MINUTE)
    return run


async def _uses(town: Town, name: str, at: datetime, *, metered: bool = True) -> None:
    """Use $30 at `at`."""
    await town.to(at)
    await town.use(name, at, 15 * MILLION, metered=metered)


async def _ends(town: Town, name: str, at: datetime) -> None:
    """End an account that has used something."""
    await _uses(town, name, at - DAY)
    await town.to(at)
    await town.cancel(name, at)
    await town.to(at + DAY)


async def _this_run(town: Town, name: str) -> Run:
    """Return the run that is under way, and not whatever follows it."""
    workflow_id = cycle_workflow_id(name)
    run_id = (await town.temporal.get_workflow_handle(workflow_id).describe()).run_id
    return town.temporal.get_workflow_handle(workflow_id, run_id=run_id)


PATHS: dict[str, Path] = {
    path.__name__: path
    for path in (
        subscription_period_closed,
        prepaid_period_with_a_top_up,
        close_that_waited_for_usage,
        grace_suspension_and_restoration,
        put_off_twice_and_retried,
        account_ended,
        ended_and_paid_afterwards,
        without_an_account,
        unknown_customer,
    )
}


async def drive(stage: Stage) -> None:
    """Take each path in a town that has seen no other."""
    for name, path in PATHS.items():
        database = await stage.new_database()
        async with open_town(stage.temporal, database, ANCHOR - HOUR) as town:
            await stage.keep(name, await path(town, name))
