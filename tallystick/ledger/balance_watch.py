"""What follows from a prepaid balance that has become lower: alerts, a warning, a top-up.

Looked at in the transaction that moved the wallet, so none of it can be missed or come twice. It
judges by how things stand and not by what just changed: whichever movement looks first, tells. Each
is kept apart by a key that outlives the transaction: alerts by the period, the warning by the last
grant (so that it comes again once credit has been given and used up again), the top-up by being the
only one open.
"""

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, Text, bindparam, case, func, select, true
from sqlmodel import col

from tallystick.ledger import alerts, terms, top_ups
from tallystick.ledger.account_tables import BillingAccount, EntryKind, Grant, WalletEntry
from tallystick.ledger.alerts import AlertKey, Passed
from tallystick.ledger.database import Transaction
from tallystick.ledger.notices import raise_notice
from tallystick.ledger.wallet import BALANCE
from tallystick.money import from_nano_usd, plain, to_nano_usd
from tallystick.plans import PlanTerms
from tallystick.plans.periods import Period, period_at
from tallystick.plans.wallet import percents_passed


class _Level(NamedTuple):
    """A balance, and the credit that the period had: what it began with and was given since.

    Credit that expired or was taken back in the period counts as if it had never been in it.
    """

    balance_nano_usd: int
    credit_nano_usd: int
    last_grant_id: int


async def look(
    tx: Transaction, account: BillingAccount, at: datetime, agreed: PlanTerms | None = None
) -> bool:
    """Tell and ask for what the balance at `at` calls for; returns whether anything was news.

    The caller holds the account locked and has moved its wallet. Of a customer that is not prepaid
    (any more) nothing is said. The terms in force at `at` are read where they are not given.
    """
    if agreed is None:
        standing = await terms.standing(tx, account.customer_id, at)
        assert standing is not None  # noqa: S101 - its account is locked
        agreed = standing.agreed.terms if standing.agreed else None
    if agreed is None or agreed.model != "prepaid":
        return False
    _, period = period_at(account.anchor, account.time_zone, max(at, account.anchor))
    level = await _level(tx, account.customer_id, period.start, at)
    told = await _alert(tx, account.customer_id, level, period, at)
    warned = await _warn(tx, account.customer_id, level, agreed, at)
    asked = await _top_up(tx, account.customer_id, level, agreed, at)
    return told or warned or asked


async def _alert(
    tx: Transaction, customer_id: str, level: _Level, period: Period, at: datetime
) -> bool:
    used = level.credit_nano_usd - level.balance_nano_usd
    passed = [
        Passed(AlertKey(customer_id, period.start, "balance", percent), used, level.credit_nano_usd)
        for percent in percents_passed(used, level.credit_nano_usd)
    ]
    return bool(await alerts.tell(tx, passed, at))


async def _warn(
    tx: Transaction, customer_id: str, level: _Level, agreed: PlanTerms, at: datetime
) -> bool:
    low = agreed.low_balance_usd
    if low is None or level.balance_nano_usd >= to_nano_usd(low):
        return False
    balance = plain(from_nano_usd(level.balance_nano_usd))
    return await raise_notice(
        tx,
        customer_id,
        key=f"low-balance:{level.last_grant_id}",
        kind="low_balance",
        audience="customer",
        message=f"The prepaid balance is ${balance}, below ${plain(low)}. Requests that may cost "
        "more than what is left are refused.",
        facts={"balance_usd": balance, "low_balance_usd": plain(low)},
        at=at,
    )


async def _top_up(
    tx: Transaction, customer_id: str, level: _Level, agreed: PlanTerms, at: datetime
) -> bool:
    wanted = agreed.top_up
    if wanted is None or level.balance_nano_usd >= to_nano_usd(wanted.below_usd):
        return False
    amount = to_nano_usd(wanted.amount_usd)
    return await top_ups.open_by_itself(tx, customer_id, amount, at) is not None


# --- One statement, built once --------------------------------------------------------------------
_CUSTOMER = bindparam("of_customer", type_=Text)
# Entries are numbered in the order they are written. So the number of the last one from before the
# period leads to each grant's last entry before it, by an index and not by adding up.
_LAST_BEFORE = (
    select(col(WalletEntry.wallet_entry_id))
    .where(
        col(WalletEntry.customer_id) == _CUSTOMER,
        col(WalletEntry.occurred_at) < bindparam("since"),
    )
    .order_by(col(WalletEntry.occurred_at).desc(), col(WalletEntry.wallet_entry_id).desc())
    .limit(1)
)
_EDGE = select(func.coalesce(_LAST_BEFORE.scalar_subquery(), 0).label("number")).cte("edge")


def _last(*of: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    return (
        select(
            col(WalletEntry.wallet_entry_id),
            col(WalletEntry.kind),
            col(WalletEntry.amount_nano_usd),
            col(WalletEntry.remaining_nano_usd),
        )
        .where(col(WalletEntry.customer_id) == _CUSTOMER, *of)
        .order_by(col(WalletEntry.wallet_entry_id).desc())
        .limit(1)
    )


_BEFORE_PERIOD = col(WalletEntry.wallet_entry_id) <= _EDGE.c.number
_OF_GRANT = col(WalletEntry.grant_id) == col(Grant.grant_id)
_NOW = _last(_OF_GRANT).lateral("now")
_BEFORE = _last(_OF_GRANT, _BEFORE_PERIOD).lateral("before")
_OVERDRAFT = _last(col(WalletEntry.grant_id).is_(None), _BEFORE_PERIOD).lateral("overdraft")
_GONE = case(
    (
        _NOW.c.kind.in_([EntryKind.EXPIRED, EntryKind.REVOKED])
        & (_NOW.c.wallet_entry_id > _EDGE.c.number),
        -_NOW.c.amount_nano_usd,
    ),
    (col(Grant.expires_at) <= bindparam("at"), _NOW.c.remaining_nano_usd),
    else_=0,
)
"""Of a grant: what was taken from it in the period without being used."""
_GIVEN = (
    select(
        func.sum(
            func.coalesce(_BEFORE.c.remaining_nano_usd, col(Grant.amount_nano_usd)) - _GONE
        ).label("nano_usd"),
        func.max(col(Grant.grant_id)).label("last_grant_id"),
    )
    .select_from(Grant)
    .join(_EDGE, true())
    .join(_NOW, true())
    .outerjoin(_BEFORE, true())
    .where(col(Grant.customer_id) == _CUSTOMER)
    .subquery("given")
)
_LEVEL = (
    select(
        BALANCE.label("balance"),
        (
            func.coalesce(_GIVEN.c.nano_usd, 0) + func.coalesce(_OVERDRAFT.c.remaining_nano_usd, 0)
        ).label("credit"),
        func.coalesce(_GIVEN.c.last_grant_id, 0).label("last_grant_id"),
    )
    .select_from(_GIVEN)
    .join(_EDGE, true())
    .outerjoin(_OVERDRAFT, true())
)


async def _level(tx: Transaction, customer_id: str, since: datetime, at: datetime) -> _Level:
    of = {"of_customer": customer_id, "since": since, "at": at}
    row = (await tx.execute(_LEVEL, of)).one()
    return _Level(int(row.balance), int(row.credit), row.last_grant_id)
