"""The wallet of a prepaid customer: what it holds, and every way to move it.

Entries are only ever added, and each says what its grant (or the overdraft) stands at after it. So
a balance is read from the last entry of each open grant, and which those are is kept beside them
(`Wallet`): nobody adds up years. All of that is right because whoever moves a wallet holds the
account's row locked (`accounts.lock`), and the movements of one wallet happen one after the other.
What a movement is for is unique (a grant's source, a record, an adjustment), so none happens twice.

An entry is dated as a usage record is billed: when it happened, or, if that period is closed, when
the open one began. The movements of a closed period never change, and what burns in a period is
what its statement charges.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Text, bindparam, func, null, or_, select, true, union_all
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from tallystick.ledger import reservations
from tallystick.ledger.account_tables import (
    BillingAccount,
    EntryKind,
    Grant,
    GrantKind,
    Wallet,
    WalletEntry,
)
from tallystick.ledger.database import Transaction, entity
from tallystick.ledger.tables import UsageRecord
from tallystick.plans.periods import period_at
from tallystick.plans.wallet import PRIORITY, OpenGrant, split

CORRECTIONS = "corrections"
"""The source of the one grant that takes what adjustments give back. What was charged too much
returns as credit that never expires: the grant it came from may be gone, and thousands of
corrections must not become thousands of grants."""


# --- What a wallet holds --------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Holdings:
    """What a wallet holds, in nano-USD.

    Grants that have expired are among `grants` until that is entered. `burnt_nano_usd` is what was
    burnt in the period that began at `period_start`, the latest in which anything was.
    """

    grants: tuple[OpenGrant, ...] = ()
    overdraft_nano_usd: int = 0
    """0 or less."""
    last_grant_id: int = 0
    period_start: datetime | None = None
    burnt_nano_usd: int = 0

    def balance_nano_usd(self, at: datetime) -> int:
        """Return the balance at an instant: what has expired is gone, entered or not."""
        left = sum(each.remaining_nano_usd for each in self.grants if each.covers(at))
        return left + self.overdraft_nano_usd

    def expired(self, at: datetime) -> list[OpenGrant]:
        """Return the grants that have expired at an instant, until that is entered."""
        return [each for each in self.grants if not each.covers(at)]

    def burnt_since(self, period_start: datetime) -> int:
        """Return what was burnt in the period that began then, of the latest periods."""
        return self.burnt_nano_usd if period_start == self.period_start else 0


class Funds(NamedTuple):
    """What a customer has, and how much of that is reserved for requests in flight."""

    balance_nano_usd: int
    reserved_nano_usd: int


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
    .lateral("last_of_overdraft")
)
_HELD = union_all(
    select(
        col(Grant.grant_id),
        col(Grant.priority),
        col(Grant.granted_at),
        col(Grant.expires_at),
        _LAST_OF_GRANT.c.remaining_nano_usd,
        null().label("last_grant_id"),
        null().label("period_start"),
        null().label("burnt_nano_usd"),
    )
    .select_from(Wallet)
    .join(Grant, col(Grant.grant_id) == func.any(col(Wallet.open_grants)))
    .join(_LAST_OF_GRANT, true())
    .where(col(Wallet.customer_id) == _CUSTOMER),
    select(
        *(null() for _ in range(4)),
        func.coalesce(_LAST_OF_OVERDRAFT.c.remaining_nano_usd, 0),
        col(Wallet.last_grant_id),
        col(Wallet.period_start),
        col(Wallet.burnt_nano_usd),
    )
    .select_from(Wallet)
    .outerjoin(_LAST_OF_OVERDRAFT, true())
    .where(col(Wallet.customer_id) == _CUSTOMER),
).subquery("held")
"""A row for each grant with something left, and one for the wallet with its overdraft."""
_HOLDINGS = select(_HELD)
_BALANCE = (
    select(func.coalesce(func.sum(_HELD.c.remaining_nano_usd), 0))
    .where(or_(_HELD.c.expires_at.is_(None), _HELD.c.expires_at > bindparam("at")))
    .scalar_subquery()
)
_FUNDS = select(_BALANCE.label("balance"), reservations.RESERVED.label("reserved"))


async def holdings(tx: Transaction, customer_id: str) -> Holdings:
    """Return what the wallet holds; nothing where there is none."""
    rows = (await tx.execute(_HOLDINGS, {"of_customer": customer_id})).all()
    own = next((row for row in rows if row.grant_id is None), None)
    if own is None:
        return Holdings()
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
        overdraft_nano_usd=own.remaining_nano_usd,
        last_grant_id=own.last_grant_id,
        period_start=own.period_start,
        burnt_nano_usd=own.burnt_nano_usd,
    )


async def balance(tx: Transaction, customer_id: str, at: datetime) -> int:
    """Return the balance at the instant `at`, in nano-USD; negative in overdraft."""
    return (await holdings(tx, customer_id)).balance_nano_usd(at)


async def funds(tx: Transaction, customer_id: str, at: datetime) -> Funds:
    """Return balance and reservations as of one moment.

    A single statement: a request that is recorded meanwhile, which burns its charge and gives back
    its reservation in one transaction, is seen as reserved or as burnt and never as neither.
    """
    row = (await tx.execute(_FUNDS, {"of_customer": customer_id, "at": at})).one()
    return Funds(int(row.balance), int(row.reserved))


# --- Moving it: the caller holds the account locked -----------------------------------------------
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
    row = Grant(
        customer_id=account.customer_id,
        kind=kind,
        priority=PRIORITY[kind] if priority is None else priority,
        amount_nano_usd=nano_usd,
        source=source,
        note=note,
        granted_at=at,
        expires_at=expires_at,
    )
    if not await _add(tx, row):
        return False
    moving = await _take(tx, account)
    new = moving.hold(row)
    moving.move(EntryKind.GRANTED, new, nano_usd, at)
    repaid = min(nano_usd, -moving.left[None])
    if repaid:
        moving.move(EntryKind.OVERDRAFT_REPAID, new, -repaid, at)
        moving.move(EntryKind.OVERDRAFT_REPAID, None, repaid, at)
    await moving.put_back(tx)
    return True


async def burn_usage(tx: Transaction, account: BillingAccount, record: UsageRecord) -> Holdings:
    """Burn what a record just written is charged; one without a price burns when it gets one."""
    moving = await _take(tx, account, usage_record_id=record.usage_record_id)
    moving.burn(
        EntryKind.USAGE, record.charge_nano_usd or 0, record.billed_at, used_at=record.served_at
    )
    return await moving.put_back(tx)


async def burn_usages(
    tx: Transaction,
    account: BillingAccount,
    charges: Iterable[tuple[int, int]],
    billed_at: datetime,
    *,
    used_at: datetime,
) -> Holdings:
    """Burn what records just written are charged, (usage record id, nano-USD) each, in turn.

    For a batch, all of which was used at one instant and is billed at one.
    """
    moving = await _take(tx, account)
    for usage_record_id, nano_usd in charges:
        moving.reason = {"usage_record_id": usage_record_id, "adjustment_id": None}
        moving.burn(EntryKind.USAGE, nano_usd, billed_at, used_at=used_at)
    return await moving.put_back(tx)


async def burn_adjustment(
    tx: Transaction, account: BillingAccount, adjustment_id: int, nano_usd: int, billed_at: datetime
) -> Holdings:
    """Burn what an adjustment just written adds, as usage of the moment it is booked.

    What it takes off is given back: it repays the overdraft, and the rest is `CORRECTIONS`.
    """
    moving = await _take(tx, account, adjustment_id=adjustment_id)
    if nano_usd >= 0:
        moving.burn(EntryKind.ADJUSTMENT, nano_usd, billed_at, used_at=billed_at)
        return await moving.put_back(tx)
    repaid = min(-nano_usd, -moving.left[None])
    if repaid:
        moving.move(EntryKind.ADJUSTMENT, None, repaid, billed_at)
    if rest := -nano_usd - repaid:
        corrections = moving.hold(await _corrections(tx, account, billed_at))
        moving.move(EntryKind.ADJUSTMENT, corrections, rest, billed_at)
    return await moving.put_back(tx)


async def expire(tx: Transaction, account: BillingAccount, now: datetime) -> Holdings:
    """Enter what is left of grants that have expired at `now`, each at its instant.

    Until then it is in no balance either, so this may be late.
    """
    moving = await _take(tx, account)
    for each in moving.held.expired(now):
        assert each.expires_at is not None  # noqa: S101 - without, nothing expires
        moving.move(EntryKind.EXPIRED, each.grant_id, -each.remaining_nano_usd, each.expires_at)
    return await moving.put_back(tx)


async def revoke(tx: Transaction, account: BillingAccount, source: str, at: datetime) -> int | None:
    """Take back what is left of the grant from that source; returns how much, None without one.

    What is burnt stays burnt. To be used where the money for it has gone back.
    """
    row = await _grant_from(tx, account, source)
    if row is None:
        return None
    moving = await _take(tx, account)
    revoked = moving.hold(row)
    left = moving.left[revoked]
    if left:
        moving.move(EntryKind.REVOKED, revoked, -left, at)
        await moving.put_back(tx)
    return left


async def _corrections(tx: Transaction, account: BillingAccount, at: datetime) -> Grant:
    row = Grant(
        customer_id=account.customer_id,
        kind=GrantKind.PAID,
        priority=PRIORITY[GrantKind.PAID],
        amount_nano_usd=0,
        source=CORRECTIONS,
        granted_at=at,
    )
    if await _add(tx, row):
        return row
    given = await _grant_from(tx, account, CORRECTIONS)
    assert given is not None  # noqa: S101 - it was in the way
    return given


async def _add(tx: Transaction, row: Grant) -> bool:
    """Insert the grant, and number it; False where its source has given."""
    statement = (
        insert(Grant)
        .values(row.model_dump(exclude={"grant_id"}))
        .on_conflict_do_nothing(index_elements=["customer_id", "source"])
        .returning(col(Grant.grant_id))
    )
    row.grant_id = (await tx.execute(statement)).scalar_one_or_none()
    return row.grant_id is not None


async def _grant_from(tx: Transaction, account: BillingAccount, source: str) -> Grant | None:
    statement = select(Grant).where(
        col(Grant.customer_id) == account.customer_id, col(Grant.source) == source
    )
    row = (await tx.execute(statement)).one_or_none()
    return entity(Grant, row) if row else None


# --- A wallet in hand -----------------------------------------------------------------------------
_WRITE = insert(WalletEntry)
_KEEP = insert(Wallet)
_KEEP_IT = _KEEP.on_conflict_do_update(
    index_elements=["customer_id"],
    set_={name: _KEEP.excluded[name] for name in Wallet.model_fields if name != "customer_id"},
)


async def _take(
    tx: Transaction,
    account: BillingAccount,
    *,
    usage_record_id: int | None = None,
    adjustment_id: int | None = None,
) -> "_Moving":
    reason = {"usage_record_id": usage_record_id, "adjustment_id": adjustment_id}
    return _Moving(account, await holdings(tx, account.customer_id), reason)


class _Moving:
    """A wallet while it is moved: what it holds by now, and its new entries.

    `left` is what each grant has left, and None the overdraft; `reason` is what is moved for now.
    """

    def __init__(self, account: BillingAccount, held: Holdings, reason: dict[str, int | None]):
        self.held = held
        self.left: dict[int | None, int] = {None: held.overdraft_nano_usd}
        self.left |= {each.grant_id: each.remaining_nano_usd for each in held.grants}
        self.reason = reason
        self._account = account
        self._entries: list[dict[str, Any]] = []

    def hold(self, row: Grant) -> int:
        """Count a grant to the wallet that may have nothing left in it; returns its number."""
        assert row.grant_id is not None  # noqa: S101 - it is in the ledger
        if row.grant_id not in self.left:
            self.left[row.grant_id] = 0
            new = OpenGrant(row.grant_id, row.priority, row.granted_at, row.expires_at, 0)
            self.held = replace(
                self.held,
                grants=(*self.held.grants, new),
                last_grant_id=max(self.held.last_grant_id, row.grant_id),
            )
        return row.grant_id

    def burn(self, kind: EntryKind, nano_usd: int, at: datetime, *, used_at: datetime) -> None:
        """Burn what was used at an instant and is billed at another."""
        for grant_id, share in split(self._open_grants(), nano_usd, used_at):
            self.move(kind, grant_id, -share, at)

    def move(self, kind: EntryKind, grant_id: int | None, nano_usd: int, at: datetime) -> None:
        """Enter a movement of a grant that is held, or of the overdraft."""
        self.left[grant_id] += nano_usd
        at = max(at, self._account.closed_until)
        self._entries.append(
            {
                "customer_id": self._account.customer_id,
                "grant_id": grant_id,
                "kind": kind,
                "amount_nano_usd": nano_usd,
                "remaining_nano_usd": self.left[grant_id],
                "occurred_at": at,
                **self.reason,
            }
        )
        if kind in (EntryKind.USAGE, EntryKind.ADJUSTMENT):
            self._count(-nano_usd, at)

    def _open_grants(self) -> tuple[OpenGrant, ...]:
        return tuple(
            replace(each, remaining_nano_usd=self.left[each.grant_id])
            for each in self.held.grants
            if self.left[each.grant_id]
        )

    def _count(self, burnt_nano_usd: int, at: datetime) -> None:
        account = self._account
        _, period = period_at(account.anchor, account.time_zone, max(at, account.anchor))
        latest = self.held.period_start
        if latest is None or period.start > latest:
            self.held = replace(self.held, period_start=period.start, burnt_nano_usd=0)
        # What is billed in an older period, while that is not closed, is not of the latest.
        if period.start == self.held.period_start:
            total = self.held.burnt_nano_usd + burnt_nano_usd
            self.held = replace(self.held, burnt_nano_usd=total)

    async def put_back(self, tx: Transaction) -> Holdings:
        """Write the entries and what they come to; returns what the wallet holds now."""
        open_grants = self._open_grants()
        self.held = replace(self.held, grants=open_grants, overdraft_nano_usd=self.left[None])
        if self._entries:
            await tx.execute(_WRITE, self._entries)
            await tx.execute(
                _KEEP_IT,
                {
                    "customer_id": self._account.customer_id,
                    "open_grants": [each.grant_id for each in open_grants],
                    "last_grant_id": self.held.last_grant_id,
                    "period_start": self.held.period_start,
                    "burnt_nano_usd": self.held.burnt_nano_usd,
                },
            )
        return self.held
