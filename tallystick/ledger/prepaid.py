"""Usage of prepaid customers: the record and what it burns are one transaction.

The account is locked first, so records of one customer burn one after the other and each finds what
the last has left. Writing the record releases the request's reservation in the same transaction, so
admission sees a request as reserved or as burnt. And since only the one who writes the record
burns, repeating it moves nothing.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from tallystick.ledger import accounts, balance_watch, usage, wallet
from tallystick.ledger.account_tables import BillingAccount
from tallystick.ledger.database import Transaction
from tallystick.ledger.notices import raise_notice
from tallystick.ledger.tables import UsageRecord
from tallystick.ledger.usage import NewRecord, Recorded
from tallystick.money import from_nano_usd, plain
from tallystick.plans import PlanTerms


class Burnt(NamedTuple):
    """The request's one record, and whether burning it left anything to be done or told."""

    recorded: Recorded
    news: bool


async def record(tx: Transaction, new: NewRecord, agreed: PlanTerms) -> Burnt:
    """Write the usage record and burn what it charges; repeating it returns the first and no more.

    Without an account there is no wallet to burn from. Admission lets nobody in then, but a request
    may be in flight while its customer comes to be prepaid: that one is recorded, and an operator
    told.
    """
    account = await accounts.lock(tx, new.key.customer_id)
    recorded = await usage.record(tx, new)
    if not recorded.written:
        return Burnt(recorded, news=False)
    if account is None:
        return Burnt(recorded, news=await _tell_operator(tx, recorded.record))
    held = await wallet.burn_usage(tx, account, recorded.record)
    news = await balance_watch.look(tx, account, held, recorded.record.billed_at, agreed)
    return Burnt(recorded, news)


async def burn_batch(
    tx: Transaction,
    account: BillingAccount,
    charges: Iterable[tuple[int, int]],
    agreed: PlanTerms,
    billed_at: datetime,
    *,
    used_at: datetime,
) -> bool:
    """Burn the charges of a batch's records, (usage record id, nano-USD) each; tells of news.

    The caller holds the account locked and has just written the records.
    """
    held = await wallet.burn_usages(tx, account, charges, billed_at, used_at=used_at)
    return await balance_watch.look(tx, account, held, billed_at, agreed)


async def adjust(
    tx: Transaction, account: BillingAccount, adjustment_id: int, nano_usd: int, billed_at: datetime
) -> None:
    """Burn what an adjustment of prepaid usage adds, or give back what it takes.

    The caller holds the account locked and has just written the adjustment.
    """
    held = await wallet.burn_adjustment(tx, account, adjustment_id, nano_usd, billed_at)
    await balance_watch.look(tx, account, held, billed_at)


async def _tell_operator(tx: Transaction, record: UsageRecord) -> bool:
    charge = plain(from_nano_usd(record.charge_nano_usd or 0))
    return await raise_notice(
        tx,
        record.customer_id,
        key=f"no-wallet:{record.request_id}",
        kind="no_wallet",
        audience="operator",
        message=f"Request {record.request_id} of {record.customer_id} was served on the prepaid "
        f"plan {record.plan} without an account: its charge of ${charge} burns no credit.",
        facts={"request_id": record.request_id, "charge_usd": charge},
        at=record.served_at,
    )
