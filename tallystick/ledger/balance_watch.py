"""What follows from a prepaid balance that has become lower: alerts, a warning, a top-up.

Looked at in the transaction that moved the wallet, so none of it can be missed or come twice. It
judges by how things stand and not by what just changed: whichever movement looks first, tells. Each
is kept apart by a key that outlives the transaction: alerts by the period, the warning by the last
grant (so that it comes again once credit has been given and used up again), the top-up by being the
only one open.
"""

from datetime import datetime

from tallystick.ledger import alerts, terms, top_ups
from tallystick.ledger.account_tables import BillingAccount
from tallystick.ledger.alerts import AlertKey, Passed
from tallystick.ledger.database import Transaction
from tallystick.ledger.notices import raise_notice
from tallystick.ledger.wallet import Holdings
from tallystick.money import from_nano_usd, plain, to_nano_usd
from tallystick.plans import PlanTerms
from tallystick.plans.periods import period_at
from tallystick.plans.wallet import percents_passed


async def look(
    tx: Transaction,
    account: BillingAccount,
    held: Holdings,
    at: datetime,
    agreed: PlanTerms | None = None,
) -> bool:
    """Tell and ask for what the balance at `at` calls for; returns whether anything was news.

    Of a customer that is not prepaid (any more) nothing is said.

    Args:
        tx: the transaction.
        account: whose wallet was moved; locked.
        held: what it holds now.
        at: the instant.
        agreed: the terms in force then; read where they are not given.
    """
    if agreed is None:
        standing = await terms.standing(tx, account.customer_id, at)
        assert standing is not None  # noqa: S101 - its account is locked
        agreed = standing.agreed.terms if standing.agreed else None
    if agreed is None or agreed.model != "prepaid":
        return False
    told = await _alert(tx, account, held, at)
    warned = await _warn(tx, account.customer_id, held, agreed, at)
    asked = await _top_up(tx, account.customer_id, held, agreed, at)
    return told or warned or asked


async def _alert(tx: Transaction, account: BillingAccount, held: Holdings, at: datetime) -> bool:
    """Tell which shares of the credit are burnt that there was to burn in the period."""
    _, period = period_at(account.anchor, account.time_zone, max(at, account.anchor))
    burnt = held.burnt_since(period.start)
    credit = held.balance_nano_usd(at) + burnt
    passed = [
        Passed(AlertKey(account.customer_id, period.start, "balance", percent), burnt, credit)
        for percent in percents_passed(burnt, credit)
    ]
    return bool(await alerts.tell(tx, passed, at))


async def _warn(
    tx: Transaction, customer_id: str, held: Holdings, agreed: PlanTerms, at: datetime
) -> bool:
    low = agreed.low_balance_usd
    if low is None or held.balance_nano_usd(at) >= to_nano_usd(low):
        return False
    balance = plain(from_nano_usd(held.balance_nano_usd(at)))
    return await raise_notice(
        tx,
        customer_id,
        key=f"low-balance:{held.last_grant_id}",
        kind="low_balance",
        audience="customer",
        message=f"The prepaid balance is ${balance}, below ${plain(low)}. Requests that may cost "
        "more than what is left are refused.",
        facts={"balance_usd": balance, "low_balance_usd": plain(low)},
        at=at,
    )


async def _top_up(
    tx: Transaction, customer_id: str, held: Holdings, agreed: PlanTerms, at: datetime
) -> bool:
    wanted = agreed.top_up
    if wanted is None or held.balance_nano_usd(at) >= to_nano_usd(wanted.below_usd):
        return False
    amount = to_nano_usd(wanted.amount_usd)
    return await top_ups.open_by_itself(tx, customer_id, amount, at) is not None
