"""Comparing Anthropic's cost report with the price book, a UTC day at a time.

Sums by model are compared first; only where they differ is a day's usage looked at on both sides,
since tokens that differ explain money that does.
"""

from datetime import UTC, datetime, timedelta

from activities.transactions import transaction
from tallystick.contracts import Reconciled, ReconcileStep
from tallystick.ledger import (
    discrepancies,
    provider_records,
    reconciliations,
    served_costs,
    served_usage,
)
from tallystick.ledger.database import Ledger, Transaction, snapshot
from tallystick.reconciling.costs import (
    TOKENS,
    CostDifference,
    by_component,
    cost_differences,
    judge,
)
from tallystick.reconciling.differences import Difference, everywhere
from tallystick.reconciling.findings import Finding, Pair
from tallystick.reconciling.intervals import DAY, HOUR
from tallystick.reconciling.reported import by_place
from tallystick.reconciling.words import several


def whole_days(start: datetime, end: datetime) -> tuple[datetime, datetime]:
    """Return the UTC days that lie in [start, end) as a whole; the same twice where none does."""
    first, last = _day(start), _day(end)
    first = first if first == start else first + DAY
    return first, max(first, last)


def _day(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


async def compare_days(ledger: Ledger, step: ReconcileStep, *, settles: timedelta) -> Reconciled:
    """Compare the whole days of the step, and enter what differs.

    Raises:
        ApplicationError: the ledger is away.
    """
    async with transaction(ledger) as tx:
        run = await reconciliations.get(tx, step.reconciliation_id)
    if run.refreshed_at is None:
        return Reconciled(words="not compared: the cost report was not read")
    day, end = whole_days(step.start, step.end)
    found = 0
    while day < end:
        async with transaction(ledger) as tx:
            await snapshot(tx)
            findings = await _look(tx, day)
        async with transaction(ledger) as tx:
            await _enter(tx, step, day, findings, settles)
        found += len(findings)
        day += DAY
    return Reconciled(
        words=several(found, "difference") if found else "nothing differs", found=found
    )


async def _look(tx: Transaction, day: datetime) -> list[Finding]:
    end = day + DAY
    reported = by_component(await provider_records.cost_rows(tx, day.date(), end.date()))
    unlike = cost_differences(reported, await served_costs.served_costs(tx, day, end))
    if not unlike:
        return []
    rows = await provider_records.usage_rows(tx, day, end)
    served = await served_usage.served(tx, day, end, HOUR)
    findings: list[Finding] = []
    for each in unlike:
        usage = everywhere(by_place(rows), served)
        found = judge(each, [used for used in usage if _concerns(each, used)])
        if found is not None:
            findings.append(found)
    return findings


def _concerns(found: CostDifference, usage: Difference) -> bool:
    return found.where.component != TOKENS or usage.place.model == found.where.model


async def _enter(
    tx: Transaction,
    step: ReconcileStep,
    day: datetime,
    findings: list[Finding],
    settles: timedelta,
) -> None:
    for each in findings:
        await discrepancies.report(
            tx, each, reconciliation_id=step.reconciliation_id, settles=settles, at=step.now
        )
    await discrepancies.settle_unseen(
        tx,
        Pair.COST_LEDGER,
        [each.key for each in findings],
        start=day,
        end=day + DAY,
        reconciliation_id=step.reconciliation_id,
        at=step.now,
    )
