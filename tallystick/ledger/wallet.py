"""The wallet of a prepaid customer: its grants, and every movement of them.

A balance is never stored, it is the sum of entries. But each entry says what its grant (or the
overdraft) stands at after it, so a balance is read from the last entry of each and not by adding up
years. That is right because whoever writes entries holds the account's row locked
(`accounts.lock`): the movements of one wallet happen one after the other. What a movement is for is
unique (a grant's source, a record, an adjustment), so none happens twice.

An entry is dated as a usage record is billed: when it happened, or, if that period is closed, when
the open one began. The movements of a closed period never change, and what burns in a period is
what its statement charges.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import NamedTuple

from sqlalchemy import Text, bindparam, func, null, or_, select, true, union_all
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from tallystick.ledger import reservations
from tallystick.ledger.account_tables import (
    BillingAccount,
    EntryKind,
    Grant,
    GrantKind,
    WalletEntry,
)
from tallystick.ledger.database import Transaction, entity
from tallystick.ledger.tables import Adjustment, UsageRecord
from tallystick.plans.wallet import PRIORITY, OpenGrant, burn

CORRECTIONS = "corrections"
"""The source of the one grant that takes what adjustments give back. What was charged too much
returns as credit that never expires: the grant it came from may be gone, and thousands of
corrections must not become thousands of grants."""


# --- What a wallet holds --------------------------------------------------------------------------
# Statements are built once, since every request of a prepaid customer runs them.
_CUSTOMER = bindparam("of_customer", type_=Text)
_LAST_OF_GRANT = (
    select(col(WalletEntry.remaining_nano_usd))
    .where(
        col(WalletEntry.customer_id) == col(Grant.customer_id),
        col(WalletEntry.grant_id) == col(Grant.grant_id),
    )
    .order_by(col(WalletEntry.wallet_entry_id).desc())
    .limit(1)
    .lateral("last_of_grant")
)
_LAST_OF_OVERDRAFT = (
    select(col(WalletEntry.remaining_nano_usd))
    .where(col(WalletEntry.customer_id) == _CUSTOMER, col(WalletEntry.grant_id).is_(None))
    .order_by(col(WalletEntry.wallet_entry_id).desc())
    .limit(1)
    .subquery("last_of_overdraft")
)
_HELD = union_all(
    select(
        col(Grant.grant_id),
        col(Grant.priority),
        col(Grant.granted_at),
        col(Grant.expires_at),
        _LAST_OF_GRANT.c.remaining_nano_usd,
    )
    .join(_LAST_OF_GRANT, true())
    .where(col(Grant.customer_id) == _CUSTOMER, _LAST_OF_GRANT.c.remaining_nano_usd > 0),
    select(null(), null(), null(), null(), _LAST_OF_OVERDRAFT.c.remaining_nano_usd),
).subquery("held")
"""A row for each grant with something left, expired or not, and one for the overdraft."""
_HOLDINGS = select(_HELD)
_ENTERED = select(func.coalesce(func.sum(_HELD.c.remaining_nano_usd), 0))
"""The sum of all entries."""
BALANCE = _ENTERED.where(
    or_(_HELD.c.expires_at.is_(None), _HELD.c.expires_at > bindparam("at"))
).scalar_subquery()
"""The balance of `of_customer` at the instant `at`: what has expired is gone, entered or not."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """The grants of a wallet that have something left, and its overdraft (0 or less)."""

    grants: tuple[OpenGrant, ...]
    overdraft_nano_usd: int


class Funds(NamedTuple):
    """What a customer has, and how much of that is reserved for requests in flight."""

    balance_nano_usd: int
    reserved_nano_usd: int


async def holdings(tx: Transaction, customer_id: str) -> Holdings:
    """Return what the wallet holds; grants that have expired are in it until that is entered."""
    rows = (await tx.execute(_HOLDINGS, {"of_customer": customer_id})).all()
    return Holdings(
        grants=tuple(
            OpenGrant(
                grant_id=row.grant_id,
                priority=row.priority,
                granted_at=row.granted_at,
                expires_at=row.expires_at,
                remaining_nano_usd=row.remaining_nano_usd,
            )
            for row in rows
            if row.grant_id is not None
        ),
        overdraft_nano_usd=sum(row.remaining_nano_usd for row in rows if row.grant_id is None),
    )


_GET_BALANCE = select(BALANCE)
_FUNDS = select(BALANCE.label("balance"), reservations.RESERVED.label("reserved"))


async def balance(tx: Transaction, customer_id: str, at: datetime) -> int:
    """Return the balance at the instant `at`, in nano-USD; negative in overdraft."""
    return int(
        (await tx.execute(_GET_BALANCE, {"of_customer": customer_id, "at": at})).scalar_one()
    )


async def funds(tx: Transaction, customer_id: str, at: datetime) -> Funds:
    """Return balance and reservations as of one moment.

    A single statement: a request that is recorded meanwhile, which burns its charge and gives back
    its reservation in one transaction, is seen as reserved or as burnt and never as neither.
    """
    row = (await tx.execute(_FUNDS, {"of_customer": customer_id, "at": at})).one()
    return Funds(int(row.balance), int(row.reserved))


# --- Moving it ------------------------------------------------------------------------------------
async def grant(
    tx: Transaction,
    account: BillingAccount,
    *,
    kind: GrantKind,
    nano_usd: int,
    source: str,
    at: datetime,
    priority: int | None = None,
    expires_at: datetime | None = None,
    note: str | None = None,
) -> bool:
    """Give credit, which first repays the overdraft; False, and no change, where the source gave.

    Args:
        tx: the transaction.
        account: whose wallet; locked.
        kind: whether it was paid for.
        nano_usd: how much, more than nothing.
        source: what it is given for, such as `top-up:17`; the same never gives twice.
        at: when.
        priority: the lowest burns first; by its kind if None (`tallystick.plans.wallet`).
        expires_at: from when on it covers nothing any more; None is never.
        note: a word for people.
    """
    grant_id = await _add_grant(
        tx,
        Grant(
            customer_id=account.customer_id,
            kind=kind,
            priority=PRIORITY[kind] if priority is None else priority,
            amount_nano_usd=nano_usd,
            source=source,
            note=note,
            granted_at=at,
            expires_at=expires_at,
        ),
    )
    if grant_id is None:
        return False
    overdraft = (await holdings(tx, account.customer_id)).overdraft_nano_usd
    entries = _Entries(account, at)
    entries.add(EntryKind.GRANTED, grant_id, nano_usd, nano_usd)
    repaid = min(nano_usd, -overdraft)
    if repaid:
        entries.add(EntryKind.OVERDRAFT_REPAID, grant_id, -repaid, nano_usd - repaid)
        entries.add(EntryKind.OVERDRAFT_REPAID, None, repaid, overdraft + repaid)
    await entries.write(tx)
    return True


async def burn_usage(tx: Transaction, account: BillingAccount, record: UsageRecord) -> None:
    """Burn what a record is charged; one without a price burns when it gets one.

    The caller holds the account locked and has just written the record.
    """
    entries = _Entries(account, record.billed_at, usage_record_id=record.usage_record_id)
    await _burn(tx, entries, EntryKind.USAGE, record.charge_nano_usd or 0, record.served_at)


async def burn_adjustment(
    tx: Transaction, account: BillingAccount, adjustment_id: int, nano_usd: int, billed_at: datetime
) -> None:
    """Burn what an adjustment adds, as usage of the moment it is booked; give back what it takes.

    What comes back repays the overdraft, and the rest of it is the customer's `CORRECTIONS`. The
    caller holds the account locked and has just written the adjustment.
    """
    entries = _Entries(account, billed_at, adjustment_id=adjustment_id)
    if nano_usd >= 0:
        await _burn(tx, entries, EntryKind.ADJUSTMENT, nano_usd, billed_at)
        return
    back = -nano_usd
    held = await holdings(tx, account.customer_id)
    repaid = min(back, -held.overdraft_nano_usd)
    if repaid:
        entries.add(EntryKind.ADJUSTMENT, None, repaid, held.overdraft_nano_usd + repaid)
    if back > repaid:
        corrections = await _corrections(tx, account, billed_at)
        before = sum(g.remaining_nano_usd for g in held.grants if g.grant_id == corrections)
        entries.add(EntryKind.ADJUSTMENT, corrections, back - repaid, before + back - repaid)
    await entries.write(tx)


async def expired(tx: Transaction, customer_id: str, at: datetime) -> list[OpenGrant]:
    """Return the grants that have expired at `at` and what they had left, until it is entered."""
    return [each for each in (await holdings(tx, customer_id)).grants if not each.covers(at)]


async def expire(tx: Transaction, account: BillingAccount, grants: Iterable[OpenGrant]) -> int:
    """Enter that these have expired, each at its instant; returns how much that was.

    Until then it is in no balance either, so this may be late.
    """
    gone = 0
    for each in grants:
        assert each.expires_at is not None  # noqa: S101 - without, nothing expires
        entries = _Entries(account, each.expires_at)
        entries.add(EntryKind.EXPIRED, each.grant_id, -each.remaining_nano_usd, 0)
        await entries.write(tx)
        gone += each.remaining_nano_usd
    return gone


async def revoke(tx: Transaction, account: BillingAccount, source: str, at: datetime) -> int | None:
    """Take back what is left of the grant from that source; returns how much, None without one.

    What is burnt stays burnt. To be used where the money for it has gone back.
    """
    statement = select(col(Grant.grant_id)).where(
        col(Grant.customer_id) == account.customer_id, col(Grant.source) == source
    )
    grant_id = (await tx.execute(statement)).scalar_one_or_none()
    if grant_id is None:
        return None
    held = (await holdings(tx, account.customer_id)).grants
    left = sum(each.remaining_nano_usd for each in held if each.grant_id == grant_id)
    if left:
        entries = _Entries(account, at)
        entries.add(EntryKind.REVOKED, grant_id, -left, 0)
        await entries.write(tx)
    return left


async def _burn(
    tx: Transaction, entries: "_Entries", kind: EntryKind, nano_usd: int, used_at: datetime
) -> None:
    held = await holdings(tx, entries.customer_id)
    left = {grant.grant_id: grant.remaining_nano_usd for grant in held.grants}
    for grant_id, share in burn(held.grants, nano_usd, used_at):
        before = held.overdraft_nano_usd if grant_id is None else left[grant_id]
        entries.add(kind, grant_id, -share, before - share)
    await entries.write(tx)


async def _corrections(tx: Transaction, account: BillingAccount, at: datetime) -> int:
    row = Grant(
        customer_id=account.customer_id,
        kind=GrantKind.PAID,
        priority=PRIORITY[GrantKind.PAID],
        amount_nano_usd=0,
        source=CORRECTIONS,
        granted_at=at,
    )
    made = await _add_grant(tx, row)
    if made is not None:
        return made
    statement = select(col(Grant.grant_id)).where(
        col(Grant.customer_id) == account.customer_id, col(Grant.source) == CORRECTIONS
    )
    return (await tx.execute(statement)).one().grant_id


async def _add_grant(tx: Transaction, row: Grant) -> int | None:
    statement = (
        insert(Grant)
        .values(row.model_dump(exclude={"grant_id"}))
        .on_conflict_do_nothing(index_elements=["customer_id", "source"])
        .returning(col(Grant.grant_id))
    )
    return (await tx.execute(statement)).scalar_one_or_none()


_WRITE = insert(WalletEntry)


class _Entries:
    """Entries for one reason, to be written in the order they are added."""

    def __init__(
        self,
        account: BillingAccount,
        at: datetime,
        *,
        usage_record_id: int | None = None,
        adjustment_id: int | None = None,
    ):
        self.customer_id = account.customer_id
        self._common = {
            "customer_id": account.customer_id,
            "usage_record_id": usage_record_id,
            "adjustment_id": adjustment_id,
            "occurred_at": max(at, account.closed_until),
        }
        self._rows: list[dict[str, object]] = []

    def add(self, kind: EntryKind, grant_id: int | None, nano_usd: int, remaining: int) -> None:
        self._rows.append(
            {
                **self._common,
                "kind": kind,
                "grant_id": grant_id,
                "amount_nano_usd": nano_usd,
                "remaining_nano_usd": remaining,
            }
        )

    async def write(self, tx: Transaction) -> None:
        if self._rows:
            await tx.execute(_WRITE, self._rows)


# --- What was moved -------------------------------------------------------------------------------
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

    wallet_entry_id: int
    occurred_at: datetime
    kind: EntryKind
    source: str | None
    request_id: str | None
    amount_nano_usd: int
    balance_nano_usd: int


@dataclass(frozen=True, slots=True)
class Movements:
    """All that moved in a span of time, from the balance before it to the balance after it.

    Balances here are sums of entries: what has expired is in them until that is entered.
    """

    opening_nano_usd: int
    entries: tuple[Movement, ...]

    @property
    def closing_nano_usd(self) -> int:
        """The balance after it."""
        return self.entries[-1].balance_nano_usd if self.entries else self.opening_nano_usd


_SINCE = (
    select(func.coalesce(func.sum(col(WalletEntry.amount_nano_usd)), 0))
    .where(
        col(WalletEntry.customer_id) == _CUSTOMER,
        col(WalletEntry.occurred_at) >= bindparam("start"),
    )
    .scalar_subquery()
)
# From today's balance backwards: entries are many, and those of a period are the latest of them.
_OPENING = select(_ENTERED.scalar_subquery() - _SINCE)


async def movements(
    tx: Transaction, customer_id: str, start: datetime | None, end: datetime | None
) -> Movements:
    """Return the movements dated in [start, end), oldest first; None is without a bound."""
    opening = 0
    dated = [col(WalletEntry.customer_id) == customer_id]
    if end is not None:
        dated.append(col(WalletEntry.occurred_at) < end)
    if start is not None:
        of_start = {"of_customer": customer_id, "start": start}
        opening = int((await tx.execute(_OPENING, of_start)).scalar_one())
        dated.append(col(WalletEntry.occurred_at) >= start)
    usage_record_id = func.coalesce(
        col(WalletEntry.usage_record_id), col(Adjustment.usage_record_id)
    )
    statement = (
        select(WalletEntry, col(Grant.source), col(UsageRecord.request_id))
        .outerjoin(Grant, col(Grant.grant_id) == col(WalletEntry.grant_id))
        .outerjoin(Adjustment, col(Adjustment.adjustment_id) == col(WalletEntry.adjustment_id))
        .outerjoin(UsageRecord, col(UsageRecord.usage_record_id) == usage_record_id)
        .where(*dated)
        .order_by(col(WalletEntry.occurred_at), col(WalletEntry.wallet_entry_id))
    )
    rows = (await tx.execute(statement)).all()
    balances = accumulate((row.amount_nano_usd for row in rows), initial=opening)
    next(balances)
    return Movements(
        opening,
        tuple(
            Movement(
                wallet_entry_id=row.wallet_entry_id,
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
    statement = (
        select(
            Grant, func.coalesce(_LAST_OF_GRANT.c.remaining_nano_usd, 0).label("remaining_nano_usd")
        )
        .outerjoin(_LAST_OF_GRANT, true())
        .where(col(Grant.customer_id) == customer_id)
        .order_by(col(Grant.grant_id))
    )
    return [
        GivenGrant(entity(Grant, row), row.remaining_nano_usd)
        for row in await tx.execute(statement)
    ]
