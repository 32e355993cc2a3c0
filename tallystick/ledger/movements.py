"""What moved in a wallet over time, and what it was ever given: for people to read.

To be read in one snapshot (`database.snapshot`): the balance before a span of time is worked out
backwards from what the wallet holds now, since the entries of years are many and those of the span
are the latest of them. Balances here are sums of entries: what has expired is in them until that is
entered.
"""

from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate

from sqlalchemy import func, select
from sqlmodel import col

from tallystick.ledger import wallet
from tallystick.ledger.account_tables import EntryKind, Grant, WalletEntry
from tallystick.ledger.database import Transaction, entity
from tallystick.ledger.tables import Adjustment, UsageRecord


@dataclass(frozen=True, slots=True)
class GivenGrant:
    """A grant and what is left of it; of one that has expired, until that is entered."""

    grant: Grant
    remaining_nano_usd: int


@dataclass(frozen=True, slots=True)
class Movement:
    """One entry, with the balance after it. `source` names the grant; None is the overdraft.

    `request_id` is of the usage that burnt it, or whose price was corrected.
    """

    occurred_at: datetime
    kind: EntryKind
    source: str | None
    request_id: str | None
    amount_nano_usd: int
    balance_nano_usd: int


@dataclass(frozen=True, slots=True)
class Movements:
    """All that moved from an instant on, oldest first, and the balance before it."""

    opening_nano_usd: int
    entries: tuple[Movement, ...]


async def since(tx: Transaction, customer_id: str, start: datetime) -> Movements:
    """Return the movements dated from `start` on."""
    usage_record_id = func.coalesce(
        col(WalletEntry.usage_record_id), col(Adjustment.usage_record_id)
    )
    statement = (
        select(WalletEntry, col(Grant.source), col(UsageRecord.request_id))
        .outerjoin(Grant, col(Grant.grant_id) == col(WalletEntry.grant_id))
        .outerjoin(Adjustment, col(Adjustment.adjustment_id) == col(WalletEntry.adjustment_id))
        .outerjoin(UsageRecord, col(UsageRecord.usage_record_id) == usage_record_id)
        .where(col(WalletEntry.customer_id) == customer_id, col(WalletEntry.occurred_at) >= start)
        .order_by(col(WalletEntry.occurred_at), col(WalletEntry.wallet_entry_id))
    )
    rows = (await tx.execute(statement)).all()
    held = await wallet.holdings(tx, customer_id)
    now = sum(each.remaining_nano_usd for each in held.grants) + held.overdraft_nano_usd
    opening = now - sum(row.amount_nano_usd for row in rows)
    balances = accumulate((row.amount_nano_usd for row in rows), initial=opening)
    next(balances)  # the opening itself
    return Movements(
        opening,
        tuple(
            Movement(
                occurred_at=row.occurred_at,
                kind=EntryKind(row.kind),
                source=row.source,
                request_id=row.request_id,
                amount_nano_usd=row.amount_nano_usd,
                balance_nano_usd=after,
            )
            for row, after in zip(rows, balances, strict=True)
        ),
    )


async def given(tx: Transaction, customer_id: str) -> list[GivenGrant]:
    """Return all grants the customer was ever given, oldest first."""
    held = await wallet.holdings(tx, customer_id)
    left = {each.grant_id: each.remaining_nano_usd for each in held.grants}
    statement = (
        select(Grant).where(col(Grant.customer_id) == customer_id).order_by(col(Grant.grant_id))
    )
    grants = [entity(Grant, row) for row in await tx.execute(statement)]
    return [GivenGrant(each, left.get(each.grant_id or 0, 0)) for each in grants]
