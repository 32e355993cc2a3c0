"""The ledger beside its meter events, and those beside what Stripe counts.

`compare_outbox` asks PostgreSQL alone, in a few statements over the whole interval.
`compare_stripe` adds the outbox up by the hour as Stripe does, asks about each customer and meter
once, and looks further only where an hour differs: down to the minute, and to its events. How far
the questions have come goes with every heartbeat, so whoever takes over from a killed worker asks
for the rest.

A difference is believed only if Stripe had the time to count (`settles`) and was asked about the
very minute. What cannot be judged yet is told by `again`, and no finding of before is settled for
it: only what was looked at can be seen to agree.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from temporalio import activity

from activities.failures import failure
from activities.heartbeats import heartbeating
from activities.stripe_counts import StripeCounts, everybodys
from activities.stripe_hours import Place, Progress, ask_for_hours
from activities.stripe_minutes import Narrowed, StripeMinutes
from activities.stripe_summaries import MeterSummaries
from activities.transactions import transaction
from tallystick.contracts import Reconciled, ReconcileStep
from tallystick.ledger import (
    discrepancies,
    outbox_sums,
    reconciliations,
    record_gaps,
    tally_hours,
)
from tallystick.ledger.database import Ledger, Transaction, snapshot
from tallystick.ledger.outbox_sums import MeterHours, UnitHour
from tallystick.ledger.reconciliation_tables import Discrepancy, DiscrepancyState
from tallystick.metering import TAKEN_FOR, UNITS
from tallystick.reconciling.findings import Finding, Kind, Pair
from tallystick.reconciling.meter_minutes import HOUR, MINUTE
from tallystick.reconciling.meters import judge, not_narrowed
from tallystick.reconciling.record_events import RecordGap, judge_records
from tallystick.reconciling.stuck_events import STUCK_AFTER, judge_waiting
from tallystick.reconciling.words import several

MOST_NARROWED = 500
"""Hours that a run looks into, with some seven questions each. When more of them differ, it is not
single events that went wrong, and the rest is told by the hour."""
_AT_A_TIME = 200
"""Findings in one transaction."""


class StripeComparisonActivities:
    """Compares `ledger` with what Stripe's `summaries` say.

    Args:
        ledger: whose records, outbox and discrepancies these are.
        summaries: what Stripe counts.
        settles: how long Stripe is given to count what it has acknowledged.
    """

    def __init__(self, ledger: Ledger, summaries: MeterSummaries, settles: timedelta):
        self._ledger = ledger
        self._summaries = summaries
        self._settles = settles

    # --- Records and their events -----------------------------------------------------------------
    @activity.defn
    async def compare_outbox(self, step: ReconcileStep) -> Reconciled:
        """Find records that have left other meter events than they owe.

        Raises:
            ApplicationError: `LedgerUnavailable`.
        """
        async with heartbeating():
            async with transaction(self._ledger) as tx:
                await snapshot(tx)
                gaps = await _gaps(tx, step.start, step.end)
                told = await outbox_sums.to_tell_by_hour(tx, step.start, step.end)
                charged = await record_gaps.charged_by_hour(tx, step.start, step.end)
            findings = judge_records(gaps, step.now)
            await self._report(step, findings)
            async with transaction(self._ledger) as tx:
                await _settle(tx, step, Pair.LEDGER_OUTBOX, findings)
                await tally_hours.put(tx, "outbox", told)
                await tally_hours.put(tx, "ledger", charged)
                await reconciliations.note_totals(
                    tx, step.reconciliation_id, "outbox", _totals(told)
                )
        words = "every record has left the meter events that it owes"
        if findings:
            words = f"records and their meter events differ in {_places(len(findings))}"
        return Reconciled(words=words, found=len(findings))

    # --- Events and what Stripe counts ------------------------------------------------------------
    @activity.defn
    async def compare_stripe(self, step: ReconcileStep) -> Reconciled:
        """Find where Stripe counts otherwise than it was sent, and what it was not sent at all.

        Raises:
            ApplicationError: `LedgerUnavailable`, or what Stripe answers everybody; a repeated try
                goes on from where this one has come to.
        """
        progress = _resumed(step)
        async with heartbeating(progress.to_tell):
            # First, since it needs no answer: while Stripe is away it is what there is to tell.
            stuck = await self._waiting(step)
            await self._report(step, stuck)
            since = step.now - self._settles
            async with transaction(self._ledger) as tx:
                sent = outbox_sums.sent_by_hour(tx, step.start, step.end, fresh_since=since)
                meters = [each async for each in sent]
            counts = StripeCounts(self._summaries, progress.calls)
            await ask_for_hours(counts, meters, progress, activity.info().attempt)
            looked_into = progress.differing[:MOST_NARROWED]
            narrowed = await StripeMinutes(self._ledger, counts, since).of_hours(looked_into)
            progress.calls = counts.calls
            _stop_for(narrowed)
            differences = judge(narrowed.minutes, step.now)
            differences += [
                not_narrowed(
                    each.customer_id,
                    each.meter,
                    each.hour,
                    expected=each.expected,
                    counted=each.counted,
                )
                for each in progress.differing[MOST_NARROWED:]
            ]
            await self._report(step, differences)
            await self._conclude(step, meters, progress, narrowed, [*stuck, *differences])
        waiting = len(progress.unjudged) - len(progress.unknown) + len(narrowed.unjudged)
        return Reconciled(
            words=_in_words(len(meters), len(stuck), len(differences), waiting, progress.unknown),
            found=len(stuck) + len(differences),
            calls=progress.calls,
            again=waiting > 0,
        )

    async def _waiting(self, step: ReconcileStep) -> list[Finding]:
        since = step.now - STUCK_AFTER
        async with transaction(self._ledger) as tx:
            hours = outbox_sums.waiting(tx, step.start, step.end, since=since)
            return judge_waiting([each async for each in hours])

    async def _conclude(
        self,
        step: ReconcileStep,
        meters: Sequence[MeterHours],
        progress: Progress,
        narrowed: Narrowed,
        findings: Sequence[Finding],
    ) -> None:
        """Settle what agrees by now, and keep what Stripe counts where all of it is known."""
        unjudged = [*progress.unjudged, *narrowed.unjudged]
        async with transaction(self._ledger) as tx:
            before = discrepancies.find(
                tx, start=step.start, end=step.end, pair=Pair.OUTBOX_STRIPE, unsettled=True
            )
            asked = {(each.customer_id, each.meter) for each in meters}
            left = [
                row.key
                async for row in before
                if _is_sum(row) and (Place.of(row).key not in asked or _covered(row, unjudged))
            ]
            await _settle(tx, step, Pair.OUTBOX_STRIPE, findings, left)
            await reconciliations.count_calls(
                tx, step.reconciliation_id, "compare_stripe", progress.calls
            )
            if progress.unknown:
                return
            counted = _counted(meters, progress)
            await tally_hours.put(tx, "stripe", counted)
            await reconciliations.note_totals(
                tx, step.reconciliation_id, "stripe", _totals(counted)
            )

    # --- Looking again ----------------------------------------------------------------------------
    @activity.defn
    async def recheck_discrepancies(self, step: ReconcileStep) -> Reconciled:
        """Look again at every place that is not settled, of any age that Stripe still takes.

        Raises:
            ApplicationError: `LedgerUnavailable`, or what Stripe answers everybody.
        """
        async with heartbeating():
            async with transaction(self._ledger) as tx:
                found = discrepancies.find(tx, start=step.now - TAKEN_FOR, unsettled=True)
                rows = [each async for each in found if each.pair in _OURS]
            counts = StripeCounts(self._summaries)
            differing = dict.fromkeys(Place.of(row) for row in rows if _is_sum(row))
            places = list(differing)[:MOST_NARROWED]
            minutes = StripeMinutes(self._ledger, counts, step.now - self._settles)
            narrowed = await minutes.of_places(places)
            findings = [
                *judge(narrowed.minutes, step.now),
                *await self._still_waiting(step, rows),
                *await self._still_missing(step, rows),
            ]
            await self._report(step, findings)
            looked_at = [
                row
                for row in rows
                if not _is_sum(row)
                or (Place.of(row) in places and not _covered(row, narrowed.unjudged))
            ]
            settled = await self._settle_again(step, looked_at, findings, counts.calls)
            _stop_for(narrowed)
        return Reconciled(
            words=f"{len(rows)} looked at again: {settled} agree by now, {len(findings)} differ",
            found=len(findings),
            calls=counts.calls,
            again=bool(narrowed.unjudged),
        )

    async def _still_waiting(
        self, step: ReconcileStep, rows: Sequence[Discrepancy]
    ) -> list[Finding]:
        hours = sorted({row.start_at for row in rows if row.kind == Kind.NOT_DELIVERED})
        found: list[Finding] = []
        for hour in hours:
            of_hour = step.model_copy(update={"start": hour, "end": hour + HOUR})
            found += await self._waiting(of_hour)
        return found

    async def _still_missing(
        self, step: ReconcileStep, rows: Sequence[Discrepancy]
    ) -> list[Finding]:
        minutes = sorted({row.start_at for row in rows if row.pair == Pair.LEDGER_OUTBOX})
        found: list[Finding] = []
        for minute in minutes:
            async with transaction(self._ledger) as tx:
                await snapshot(tx)
                found += judge_records(await _gaps(tx, minute, minute + MINUTE), step.now)
        return found

    async def _settle_again(
        self,
        step: ReconcileStep,
        rows: Sequence[Discrepancy],
        findings: Sequence[Finding],
        calls: int,
    ) -> int:
        seen = {finding.key for finding in findings}
        agree = [row for row in rows if row.key not in seen]
        async with transaction(self._ledger) as tx:
            await reconciliations.count_calls(
                tx, step.reconciliation_id, "recheck_discrepancies", calls
            )
            for row in agree:
                await discrepancies.change_state(
                    tx,
                    row,
                    DiscrepancyState.SETTLED,
                    "both sides agree by now",
                    at=step.now,
                    reconciliation_id=step.reconciliation_id,
                )
        return len(agree)

    # --- Both -------------------------------------------------------------------------------------
    async def _report(self, step: ReconcileStep, findings: Sequence[Finding]) -> None:
        for first in range(0, len(findings), _AT_A_TIME):
            async with transaction(self._ledger) as tx:
                for finding in findings[first : first + _AT_A_TIME]:
                    await discrepancies.report(
                        tx,
                        finding,
                        reconciliation_id=step.reconciliation_id,
                        settles=self._settles,
                        at=step.now,
                    )


_OURS = (Pair.LEDGER_OUTBOX, Pair.OUTBOX_STRIPE)


def _resumed(step: ReconcileStep) -> Progress:
    """Return how far an earlier try of the step has come."""
    told = next(iter(activity.info().heartbeat_details), None)
    if told is None:
        return Progress(start=step.start, end=step.end)
    return Progress.model_validate(told)


def _stop_for(narrowed: Narrowed) -> None:
    """Raise what Stripe answers everybody.

    Raises:
        ApplicationError: a row of the error table.
    """
    trouble = everybodys(narrowed.refused)
    if trouble is not None:
        raise failure(trouble.row, trouble.message, retry_after=trouble.retry_after)


async def _gaps(tx: Transaction, start: datetime, end: datetime) -> list[RecordGap]:
    gaps = [each async for each in record_gaps.of_records(tx, start, end)]
    return gaps + await record_gaps.of_batches(tx, start, end)


async def _settle(
    tx: Transaction,
    step: ReconcileStep,
    pair: Pair,
    findings: Sequence[Finding],
    left: Sequence[str] = (),
) -> None:
    """Settle what was found before and is not found again, but for keys that were left out."""
    await discrepancies.settle_unseen(
        tx,
        pair,
        [*(finding.key for finding in findings), *left],
        start=step.start,
        end=step.end,
        reconciliation_id=step.reconciliation_id,
        at=step.now,
    )


def _is_sum(row: Discrepancy) -> bool:
    """Tell whether it is known by asking Stripe."""
    return row.pair == Pair.OUTBOX_STRIPE and row.kind != Kind.NOT_DELIVERED


def _covered(row: Discrepancy, places: Sequence[Place]) -> bool:
    of = Place.of(row)
    return any(place.covers(of) for place in places)


def _counted(meters: Sequence[MeterHours], progress: Progress) -> list[UnitHour]:
    """Return what Stripe counts of every hour in which something was sent or counted."""
    units = {UNITS[each.meter] for each in meters}
    hours = {at for each in meters for at in each.hours}
    hours |= {at for of_unit in progress.counted.values() for at in of_unit}
    return [
        UnitHour(datetime.fromtimestamp(at, UTC), unit, progress.counted.get(unit, {}).get(at, 0))
        for unit in sorted(units)
        for at in sorted(hours)
    ]


def _totals(hours: Sequence[UnitHour]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for each in hours:
        totals[each.unit] = totals.get(each.unit, 0) + each.value
    return totals


def _in_words(
    meters: int, stuck: int, differences: int, waiting: int, unknown: Sequence[str]
) -> str:
    said: list[str] = []
    if differences:
        said.append(f"Stripe counts otherwise than it was sent in {_places(differences)}")
    elif not waiting and not unknown:
        said.append("Stripe counts what it was sent")
    if stuck:
        said.append(f"it has not acknowledged what waits in {_places(stuck)}")
    if waiting:
        said.append(f"{_places(waiting)} cannot be judged yet")
    if unknown:
        said.append(f"of {len(unknown)} nothing is known: {unknown[0]}")
    return f"{meters:,} customers' meters: {'; '.join(said)}"


def _places(number: int) -> str:
    return several(number, "place")
