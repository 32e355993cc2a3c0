"""`settle_period`: a period whose books are closed becomes its statement.

What the period billed is read in one snapshot and never changes afterwards, the arithmetic is pure
(`tallystick.plans.settlement`), and the statement is written under a unique key. So whoever runs
this again, after a crash at any point, reads the same and finds or writes the same statement.
"""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from itertools import groupby

from temporalio import activity

from activities.transactions import transaction
from tallystick.contracts import StepOrder, StepResult
from tallystick.ledger import accounts, customers, plan_moves, statements, terms
from tallystick.ledger.account_tables import BillingAccount
from tallystick.ledger.billed import Window, billed
from tallystick.ledger.database import Ledger, Transaction, snapshot
from tallystick.ledger.plan_moves import Segment
from tallystick.ledger.statements import Stored
from tallystick.lost_calls import LostCalls, lost_calls
from tallystick.money import to_nano_usd
from tallystick.plans.billed import Billed
from tallystick.plans.moves import billing_zone
from tallystick.plans.periods import billing_period, period_at
from tallystick.plans.settlement import Following, PeriodTerms, Span
from tallystick.plans.statement import LostAttempts, Statement, WalletUse
from tallystick.plans.writing import NONE_LOST, Beside, Heading, write_statement
from tallystick.resent_history import resent_history

OPENING = 0
"""The number of the statement that collects the first base fee."""


class SettlementActivities:
    """Writes statements into `ledger`."""

    def __init__(self, ledger: Ledger):
        self._ledger = ledger

    @activity.defn
    async def settle_period(self, order: StepOrder) -> StepResult:
        """Write the statement of the period that the subject numbers; again, it finds the first.

        The number 0 is the opening statement, of accounts that pay a base fee in advance.
        """
        ordinal = int(order.subject)
        async with transaction(self._ledger) as tx:
            await snapshot(tx)
            stored = await statements.get(tx, order.customer_id, ordinal)
            written = stored.statement if stored else await _write(tx, order.customer_id, ordinal)
        if written is None:
            return StepResult(words="nothing is to be paid in advance")
        if stored is None:
            async with transaction(self._ledger) as tx:
                stored = await statements.add(tx, written)
        cents = Decimal(stored.statement.due_cents)
        return StepResult(words=f"statement {ordinal}: ${cents.scaleb(-2):,.2f} due")


async def _write(tx: Transaction, customer_id: str, ordinal: int) -> Statement | None:
    """Draw up the statement; None for an opening one that would collect nothing."""
    account = await accounts.get(tx, customer_id)
    customer = await customers.get(tx, customer_id)
    assert account is not None, "a step without an account"  # noqa: S101 - its agenda is empty
    assert customer is not None  # noqa: S101 - whose account it is
    heading = Heading(customer_id, customer.name, ordinal)
    if ordinal == OPENING:
        opening = await _opening(tx, account)
        return write_statement(heading, opening, Billed(), Beside()) if opening else None
    last = await statements.latest(tx, customer_id, before=ordinal)
    settled = await _terms(tx, account, ordinal, last)
    assert account.closed_until >= settled.end, "the books are still open"  # noqa: S101
    # The first period has no beginning: what was used before the account was opened is in it.
    since = settled.start if last and last.statement.ordinal != OPENING else None
    window = Window(customer_id, since, settled.start, settled.end)
    lost = (await lost_calls(tx, customer_id, start=since, end=settled.end)).get(customer_id)
    return write_statement(
        heading,
        settled,
        await billed(tx, window),
        Beside(
            history=await resent_history(tx, customer_id, settled.start, settled.end),
            wallet=await _wallet(tx, settled, window, last),
            lost=_lost(lost) if lost else NONE_LOST,
        ),
    )


async def _opening(tx: Transaction, account: BillingAccount) -> PeriodTerms | None:
    first = billing_period(account.anchor, account.time_zone, 1)
    following = await _following(tx, account, first.start)
    if not following.terms.base_fee_usd or await statements.latest(tx, account.customer_id):
        return None
    return PeriodTerms(
        start=first.start,
        end=first.start,
        whole_end=first.start,
        time_zone=account.time_zone,
        spans=(),
        following=following,
    )


async def _terms(
    tx: Transaction, account: BillingAccount, ordinal: int, last: Stored | None
) -> PeriodTerms:
    period = accounts.period_of(account, ordinal)
    start = last.statement.period_end if last else period.start
    ends = account.cancel_at is not None and account.cancel_at <= period.end
    in_force = await plan_moves.segments(tx, account.customer_id, start, period.end)
    return PeriodTerms(
        start=start,
        end=period.end,
        whole_end=billing_period(account.anchor, account.time_zone, ordinal).end,
        time_zone=account.time_zone,
        spans=_spans(in_force),
        following=None if ends else await _following(tx, account, period.end),
        fee_nano_usd=_fee_collected(last),
    )


def _spans(in_force: Iterable[Segment]) -> tuple[Span, ...]:
    """Join what differs only in a customer's own terms: those concern replies, not periods."""
    rows = groupby(in_force, lambda each: (each.agreed.plan, each.agreed.plan_from))
    of_rows = [list(of_row) for _, of_row in rows]
    return tuple(
        Span(of[0].agreed.plan, of[0].start, of[-1].end, of[0].agreed.terms) for of in of_rows
    )


async def _following(tx: Transaction, account: BillingAccount, start: datetime) -> Following:
    standing = await terms.standing(tx, account.customer_id, start)
    assert standing is not None  # noqa: S101 - it has an account
    agreed = standing.agreed
    assert agreed is not None  # noqa: S101 - plans are append-only
    zone = billing_zone(agreed.terms.model, account.time_zone)
    # In another zone it is counted anew from this boundary (`AccountActivities.finish_period`).
    anchor = account.anchor if zone == account.time_zone else start
    _, period = period_at(anchor, zone, start)
    return Following(agreed.plan, start, period.end, zone, agreed.terms)


def _fee_collected(last: Stored | None) -> int:
    lines = last.statement.lines if last else ()
    return sum(to_nano_usd(line.amount_usd) for line in lines if line.kind == "base_fee")


async def _wallet(
    tx: Transaction, settled: PeriodTerms, window: Window, last: Stored | None
) -> WalletUse | None:
    before = last.statement.wallet if last else None
    opening = before.closing_usd if before else Decimal(0)
    used = await statements.wallet_use(tx, window, opening)
    return used if settled.model == "prepaid" or opening or used.movements else None


def _lost(calls: LostCalls) -> LostAttempts:
    return LostAttempts(
        failed=calls.failed,
        unknown=calls.unknown,
        estimated_cost_usd=calls.estimated_cost_usd,
        settled=calls.settled,
        settled_cost_usd=calls.settled_cost_usd,
    )
