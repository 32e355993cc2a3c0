"""Which customers have passed a share of their spend cap, or of what their plan includes.

Looked at every minute, and only for customers with usage or corrections since the last look: how
far that came is a row of its own, locked while somebody looks. It stays a moment behind, so that a
row which was numbered before the last look and committed after it is seen by the next. What was
told once is not told again (`ledger.alerts`), so looking twice is harmless.
"""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    DateTime,
    FromClause,
    Row,
    Select,
    Text,
    bindparam,
    func,
    select,
    true,
    update,
)
from sqlalchemy import column as sql_column
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from tallystick.ledger import accounts, alerts, plan_moves, reservations, terms
from tallystick.ledger.account_tables import BillingAccount, UsageWatch
from tallystick.ledger.alerts import AlertKey, Passed, Subject
from tallystick.ledger.database import Transaction, entity
from tallystick.ledger.tables import Adjustment, UsageRecord
from tallystick.ledger.terms import Standing
from tallystick.money import to_nano_usd
from tallystick.plans.billed import Billed
from tallystick.plans.periods import period_at
from tallystick.plans.settlement import PeriodTerms, Span, settle
from tallystick.plans.wallet import percents_passed
from tallystick.pricing import TokenKind

BEHIND = timedelta(minutes=1)
"""A row is committed within milliseconds of being numbered; a busy database may take longer."""
_WATCH = "alerts"


async def look(tx: Transaction, now: datetime) -> set[str]:
    """Tell customers what they have passed, by the periods they are in at `now`; returns whom."""
    active = await _active(tx)
    standings = await terms.standings(tx, active, now)
    books = await _accounts(tx, active)
    passed = [
        *await _caps(tx, standings, books, now),
        *await _allowances(tx, standings, books, now),
    ]
    return await alerts.tell(tx, passed, now)


# --- Whom to look at ------------------------------------------------------------------------------
async def _active(tx: Transaction) -> set[str]:
    """Return the customers with something new, and note how far that was looked through."""
    await tx.execute(insert(UsageWatch).values(watch=_WATCH).on_conflict_do_nothing())
    the_watch = col(UsageWatch.watch) == _WATCH
    row = (await tx.execute(select(UsageWatch).where(the_watch).with_for_update())).one()
    used, records = await _new(tx, _RECORD_ROWS, after=row.usage_record_id)
    corrected, adjustments = await _new(tx, _ADJUSTMENT_ROWS, after=row.adjustment_id)
    await tx.execute(
        update(UsageWatch)
        .where(the_watch)
        .values(usage_record_id=records, adjustment_id=adjustments)
    )
    return used | corrected


_RECORD_ROWS = (
    col(UsageRecord.customer_id),
    col(UsageRecord.usage_record_id),
    col(UsageRecord.recorded_at),
)
_ADJUSTMENT_ROWS = (
    col(Adjustment.customer_id),
    col(Adjustment.adjustment_id),
    col(Adjustment.created_at),
)


async def _new(
    tx: Transaction, rows_of: tuple[Any, Any, Any], *, after: int
) -> tuple[set[str], int]:
    """Return whose rows have a higher number, and up to which one nothing more will be added."""
    customer_id, number, written_at = rows_of
    up_to = func.max(number).filter(written_at < func.now() - BEHIND).label("up_to")
    statement = select(customer_id, up_to).where(number > after).group_by(customer_id)
    rows = (await tx.execute(statement)).all()
    seen = [row.up_to for row in rows if row.up_to is not None]
    return {row.customer_id for row in rows}, max(seen, default=after)


async def _accounts(tx: Transaction, customers: Collection[str]) -> dict[str, BillingAccount]:
    statement = select(BillingAccount).where(col(BillingAccount.customer_id).in_(customers))
    rows = [entity(BillingAccount, row) for row in await tx.execute(statement)]
    return {row.customer_id: row for row in rows}


# --- What they have used up -----------------------------------------------------------------------
class _Limit(NamedTuple):
    """What is limited from an instant on, in nano-USD and by tokens of a kind."""

    since: datetime
    nano_usd: int
    tokens: Mapping[TokenKind, int] = {}


class _Used(NamedTuple):
    """So much of a limit is used, in the limit's unit: "USD" is nano-USD, else a kind of token."""

    used: int
    limit: int
    unit: str = "USD"

    def passed(self, customer_id: str, since: datetime, subject: Subject) -> list[Passed]:
        return [
            Passed(AlertKey(customer_id, since, subject, percent), self.used, self.limit, self.unit)
            for percent in percents_passed(self.used, self.limit)
        ]


async def _caps(
    tx: Transaction,
    standings: Mapping[str, Standing],
    books: Mapping[str, BillingAccount],
    now: datetime,
) -> list[Passed]:
    """Return what was passed of spend caps, which count usage by when it was served."""
    limits: dict[str, _Limit] = {}
    for name, standing in standings.items():
        if (cap := standing.spend_cap_usd) is not None:
            zone = standing.customer.time_zone
            since = reservations.cap_period(books.get(name), zone, now).period.start
            limits[name] = _Limit(since, to_nano_usd(cap))
    return [
        each
        for name, row in (await _sums(tx, _SPENT, limits)).items()
        for each in _Used(int(row.charge), limits[name].nano_usd).passed(
            name, limits[name].since, "cap"
        )
    ]


async def _allowances(
    tx: Transaction,
    standings: Mapping[str, Standing],
    books: Mapping[str, BillingAccount],
    now: datetime,
) -> list[Passed]:
    """Return what was passed of allowances, which count usage by when it is billed."""
    limits: dict[str, _Limit] = {}
    for name, standing in standings.items():
        account = books.get(name)
        if account is None or (account.cancel_at is not None and account.cancel_at <= now):
            continue  # no period is open
        if standing.agreed and standing.agreed.terms.allowance:
            limits[name] = await _allowance(tx, account, now)
    passed: list[Passed] = []
    for name, row in (await _sums(tx, _BILLED, limits)).items():
        limit = limits[name]
        of_all = [
            _Used(int(row.charge), limit.nano_usd),
            *(_Used(int(getattr(row, kind)), most, kind) for kind, most in limit.tokens.items()),
        ]
        # Overage begins with the kind that is used up first.
        most = max((each for each in of_all if each.limit), key=_share)
        passed += most.passed(name, limit.since, "allowance")
    return passed


def _share(used: _Used) -> Fraction:
    return Fraction(used.used, used.limit)


async def _allowance(tx: Transaction, account: BillingAccount, now: datetime) -> _Limit:
    """Return what the open period includes, prorated as it will be settled."""
    ordinal, whole = period_at(account.anchor, account.time_zone, max(now, account.anchor))
    start, end = accounts.period_of(account, ordinal)
    segments = await plan_moves.segments(tx, account.customer_id, start, end)
    settled = settle(
        PeriodTerms(
            start=start,
            end=end,
            whole_end=whole.end,
            time_zone=account.time_zone,
            spans=tuple(Span(s.agreed.plan, s.start, s.end, s.agreed.terms) for s in segments),
            following=None,
        ),
        Billed(),
    )
    included = settled.allowance
    assert included is not None  # noqa: S101 - the plan in force has one
    return _Limit(
        since=start,
        nano_usd=to_nano_usd(included.included_usd or Decimal(0)),
        tokens={each.kind: each.included for each in included.tokens},
    )


# --- Sums for many customers at once, each from an instant of its own -----------------------------
_WANTED = (
    func.unnest(
        bindparam("customers", type_=ARRAY(Text)),
        bindparam("instants", type_=ARRAY(DateTime(timezone=True))),
    )
    .table_valued(sql_column("customer_id", Text), sql_column("since", DateTime(timezone=True)))
    .render_derived(name="wanted")
)


def _sum(value: Any) -> Any:
    return func.coalesce(func.sum(value), 0)


# As admission counts it (`ledger.reservations`): two sums, of which an index answers the long one.
_SERVED = (col(UsageRecord.customer_id) == _WANTED.c.customer_id) & (
    col(UsageRecord.served_at) >= _WANTED.c.since
)
_SPENT = select(
    _WANTED.c.customer_id,
    (
        select(_sum(col(UsageRecord.charge_nano_usd))).where(_SERVED).scalar_subquery()
        + select(_sum(col(Adjustment.charge_nano_usd)))
        .join(UsageRecord)
        .where(_SERVED)
        .scalar_subquery()
    ).label("charge"),
)


def _billed(table: type[UsageRecord] | type[Adjustment]) -> FromClause:
    quantities = {
        kind: getattr(table, "web_searches" if kind is TokenKind.WEB_SEARCH else f"{kind}_tokens")
        for kind in TokenKind
    }
    return (
        select(
            _sum(col(table.charge_nano_usd)).label("charge"),
            *(_sum(column).label(kind) for kind, column in quantities.items()),
        )
        .where(
            col(table.customer_id) == _WANTED.c.customer_id, col(table.billed_at) >= _WANTED.c.since
        )
        .lateral()
    )


_RECORDS, _CORRECTIONS = _billed(UsageRecord), _billed(Adjustment)
_BILLED = (
    select(
        _WANTED.c.customer_id,
        *((_RECORDS.c[name] + _CORRECTIONS.c[name]).label(name) for name in ("charge", *TokenKind)),
    )
    .select_from(_WANTED)
    .join(_RECORDS, true())
    .join(_CORRECTIONS, true())
)


async def _sums(
    tx: Transaction, statement: Select[*tuple[Any, ...]], limits: Mapping[str, _Limit]
) -> dict[str, Row[*tuple[Any, ...]]]:
    """Return a row of sums for each limited customer, from its own instant on."""
    if not limits:
        return {}
    wanted = {
        "customers": list(limits),
        "instants": [limit.since for limit in limits.values()],
    }
    return {row.customer_id: row for row in await tx.execute(statement, wanted)}
