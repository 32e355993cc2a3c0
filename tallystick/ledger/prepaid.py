"""Usage of prepaid customers: the record and what it burns are one transaction.

The account is locked first, so records of one customer burn one after the other and each finds what
the last has left. Writing the record releases the request's reservation in the same transaction, so
admission sees a request as reserved or as burnt. And since only the one who writes the record
burns, repeating it moves nothing.
"""

from datetime import datetime
from typing import NamedTuple

from tallystick.ledger import accounts, balance_watch, terms, usage, wallet
from tallystick.ledger.account_tables import BillingAccount
from tallystick.ledger.database import Transaction
from tallystick.ledger.usage import NewRecord, Recorded
from tallystick.plans import PlanTerms


class Burnt(NamedTuple):
    """The request's one record, and whether burning it left anything to be done or told."""

    recorded: Recorded
    news: bool


async def record(tx: Transaction, new: NewRecord, agreed: PlanTerms) -> Burnt:
    """Write the usage record and burn what it charges; repeating it returns the first and no more.

    A customer without an account has no wallet to burn from. Admission lets none of them in; what
    was in flight when one came to be prepaid is recorded all the same.
    """
    account = await accounts.lock(tx, new.key.customer_id)
    recorded = await usage.record(tx, new)
    if account is None or not recorded.written:
        return Burnt(recorded, news=False)
    await wallet.burn_usage(tx, account, recorded.record)
    news = await balance_watch.look(tx, account, agreed, recorded.record.billed_at)
    return Burnt(recorded, news)


async def adjust(
    tx: Transaction, account: BillingAccount, adjustment_id: int, nano_usd: int, billed_at: datetime
) -> None:
    """Burn what an adjustment of prepaid usage adds, or give back what it takes.

    The caller holds the account locked and has just written the adjustment.
    """
    await wallet.burn_adjustment(tx, account, adjustment_id, nano_usd, billed_at)
    standing = await terms.standing(tx, account.customer_id, billed_at)
    if standing is not None and standing.agreed is not None:
        await balance_watch.look(tx, account, standing.agreed.terms, billed_at)
