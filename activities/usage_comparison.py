"""One comparison of Anthropic's usage report with the ledger, from sums to rows.

Both sides are sums by place and hour, of one moment. Where they agree that is all. Where they do
not, more is asked for, and only of those hours: what the ledger has served near their edges, calls
that were answered and have no record, calls and batches of unknown outcome; and if any of those can
have been served then, both sides once more by the minute. What is found is entered an hour at a
time, each in one transaction with what it settles.

The hour before and behind the interval are looked at as well, where the report has them, so that
what lies on the other side of an edge is seen; what is found there belongs to other runs.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from activities.claude_reports import ClaudeReports
from activities.transactions import transaction
from tallystick.contracts import Reconciled, ReconcileStep
from tallystick.ledger import (
    attempt_settlements,
    discrepancies,
    provider_records,
    reconciliations,
    served_usage,
    tally_hours,
    unrecorded_calls,
)
from tallystick.ledger.attempt_settlements import COMPARED
from tallystick.ledger.database import Ledger, Transaction, snapshot
from tallystick.pricing import TOKEN_KINDS, TokenCounts
from tallystick.reconciling import usage
from tallystick.reconciling.differences import NOT_SERVED, NOTHING, Served, differences
from tallystick.reconciling.edges import HOUR, NEAR, Edge, edges_of
from tallystick.reconciling.findings import Finding, Pair
from tallystick.reconciling.intervals import whole_hour
from tallystick.reconciling.lost_calls import Call
from tallystick.reconciling.minutes import MINUTE
from tallystick.reconciling.open_batches import explain_batches, leave_unread
from tallystick.reconciling.remains import remaining
from tallystick.reconciling.reported import At, Reported, UsageRow, by_place
from tallystick.reconciling.words import several

_BY_MINUTE_AT_MOST = 24
"""Hours that the report tells by the minute in one question."""


class UsageComparison:
    """One step's work.

    Args:
        ledger: both sides and the findings.
        reports: tells hours by the minute.
        report_keys: ids of the API keys whose usage is ours; none for all.
        settles: how long the other side of a repair has to show it.
        longest: how long one call may take.
        step: which run, over which hours.
    """

    def __init__(
        self,
        ledger: Ledger,
        reports: ClaudeReports | None,
        report_keys: Collection[str],
        *,
        settles: timedelta,
        longest: timedelta,
        step: ReconcileStep,
    ):
        self._ledger = ledger
        self._reports = reports
        self._report_keys = report_keys
        self._settles = settles
        self._longest = longest
        self._step = step
        self._calls = 0

    async def run(self) -> Reconciled:
        """Compare, enter what differs, and say what it came to.

        Raises:
            ClaudeCallError: the report could not be read by the minute.
            ApplicationError: the ledger is away.
        """
        step = self._step
        async with transaction(self._ledger) as tx:
            run = await reconciliations.get(tx, step.reconciliation_id)
        if run.refreshed_at is None:
            await self._tally_ledger()
            return Reconciled(words="not compared: the usage report was not read")
        start, end = step.start - HOUR, min(step.end + HOUR, whole_hour(run.refreshed_at))
        async with transaction(self._ledger) as tx:
            await snapshot(tx)
            reported = by_place(await provider_records.usage_rows(tx, start, end))
            served = await served_usage.served(tx, start, end, HOUR)
        hours = list(_each(start, end, HOUR))
        looked = differences(hours, reported, served)
        found: list[Finding] = []
        unjudged: set[datetime] = set()
        if looked:
            await self._add_answered_besides(looked, served)
            looked = differences(hours, reported, served)
            edges = await self._edges(looked)
            found += usage.explain_told_otherwise(looked, edges)
            if end == step.end:
                unjudged |= usage.leave_to_next_run(looked, edges)
            for look in (self._batches, self._calls_without_answer):
                more, too_early = await look(looked)
                found += more
                unjudged |= too_early
            found += await self._remaining(looked)
        await self._tally(reported, served)
        own = [each for each in found if each.start < step.end and each.end > step.start]
        not_served = await self._enter(own, unjudged)
        return Reconciled(
            words=_words(len(own), not_served, left_out=bool(unjudged)),
            found=len(own),
            calls=self._calls,
        )

    # --- Looking closer ---------------------------------------------------------------------------
    async def _add_answered_besides(
        self, looked: usage.Differences, served: dict[At, Served]
    ) -> None:
        """Add to the ledger's side what was answered and has no record."""
        for at in sorted({each.at for of in looked.values() for each in of if max(each.left) > 0}):
            async with transaction(self._ledger) as tx:
                await self._add_besides(tx, served, at, HOUR)

    async def _add_besides(
        self, tx: Transaction, served: dict[At, Served], start: datetime, width: timedelta
    ) -> None:
        besides = await served_usage.answered_besides(
            tx, start, start + HOUR, width, self._longest + NEAR
        )
        for at, more in besides.items():
            served[at] = served.get(at, NOT_SERVED).plus(more)

    async def _edges(self, looked: usage.Differences) -> dict[At, Edge]:
        """Return what the ledger has served near the edges of hours that differ."""
        instants = {edge for hours in looked.values() for edge in edges_of(hours)}
        edges: dict[At, Edge] = {}
        for at in sorted(instants):
            async with transaction(self._ledger) as tx:
                near = await served_usage.served(tx, at - NEAR, at + NEAR, NEAR)
            for place in looked:
                before = near.get((place, at - NEAR), NOT_SERVED).counts
                edges[place, at] = Edge(before, near.get((place, at), NOT_SERVED).counts)
        return edges

    async def _batches(self, looked: usage.Differences) -> tuple[list[Finding], set[datetime]]:
        """Explain usage at the batch price; also returns hours that cannot be judged yet."""
        hours = [
            hour
            for hour in usage.excess(looked, batch=True)
            if self._step.start <= hour.at < self._step.end
        ]
        if not hours:
            return [], set()
        first, last = min(hour.at for hour in hours), max(hour.at for hour in hours)
        async with transaction(self._ledger) as tx:
            unread = await unrecorded_calls.unread_batches(tx, first, last + HOUR)
            lost = await unrecorded_calls.lost_batches(tx, first, last + HOUR)
        too_early = leave_unread(hours, unread)
        return list(explain_batches(hours, lost)), too_early

    async def _calls_without_answer(
        self, looked: usage.Differences
    ) -> tuple[list[Finding], set[datetime]]:
        """Explain usage by calls without a record; also returns hours that are too early."""
        hours = usage.excess(looked, batch=False)
        if not hours or self._reports is None:
            return [], set()
        known: dict[int, Call] = {}
        for start, end in _runs(sorted({hour.at for hour in hours})):
            async with transaction(self._ledger) as tx:
                for call in await unrecorded_calls.calls(
                    tx,
                    {hour.place.model for hour in hours},
                    start,
                    end,
                    longest=self._longest,
                    now=self._step.now,
                ):
                    known[call.attempt_id] = call
        calls = list(known.values())
        hours = usage.to_narrow(hours, calls)
        rows: list[UsageRow] = []
        served: dict[At, Served] = {}
        for start, end in _runs(sorted({hour.at for hour in hours})):
            async for page in self._reports.usage(start, end, "1m", self._report_keys):
                self._calls += 1
                rows += page.rows
            for at in _each(start, end, HOUR):
                async with transaction(self._ledger) as tx:
                    served |= await served_usage.served(tx, at, at + HOUR, MINUTE)
                    await self._add_besides(tx, served, at, MINUTE)
        return usage.explain_calls(hours, calls, by_place(rows), served)

    async def _remaining(self, looked: usage.Differences) -> list[Finding]:
        found: list[Finding] = []
        async with transaction(self._ledger) as tx:
            for hour in usage.left(looked):
                keys = await provider_records.keys_of(tx, hour.place, hour.at, hour.at + HOUR)
                found.append(remaining(hour, keys))
        return found

    # --- Entering ---------------------------------------------------------------------------------
    async def _enter(self, found: Sequence[Finding], unjudged: Collection[datetime]) -> int:
        """Enter what was found; returns how many calls turn out not to have been served."""
        step = self._step
        by_hour: defaultdict[datetime, list[Finding]] = defaultdict(list)
        for each in found:
            by_hour[max(whole_hour(each.start), step.start)].append(each)
        for hour in _each(step.start, step.end, HOUR):
            async with transaction(self._ledger) as tx:
                for each in by_hour[hour]:
                    await discrepancies.report(
                        tx,
                        each,
                        reconciliation_id=step.reconciliation_id,
                        settles=self._settles,
                        at=step.now,
                    )
                if hour not in unjudged:
                    await discrepancies.settle_unseen(
                        tx,
                        Pair.CLAUDE_LEDGER,
                        [each.key for each in by_hour[hour]],
                        start=hour,
                        end=hour + HOUR,
                        reconciliation_id=step.reconciliation_id,
                        at=step.now,
                    )
        async with transaction(self._ledger) as tx:
            run = await reconciliations.get(tx, step.reconciliation_id)
            await reconciliations.note_claude(
                tx, step.reconciliation_id, COMPARED, run.refreshed_at
            )
            await reconciliations.count_calls(
                tx, step.reconciliation_id, "compare_claude", self._calls
            )
            return await attempt_settlements.settle_not_served(
                tx,
                reconciliation_id=step.reconciliation_id,
                end=min([step.end, *(hour for hour in unjudged if hour >= step.start)]),
                longest=self._longest,
                at=step.now,
            )

    async def _tally_ledger(self) -> None:
        """Keep the ledger's side alone, where the report was not read."""
        step = self._step
        async with transaction(self._ledger) as tx:
            served = await served_usage.served(tx, step.start, step.end, HOUR)
        await self._tally(None, served)

    async def _tally(
        self, reported: Mapping[At, Reported] | None, served: Mapping[At, Served]
    ) -> None:
        """Keep what each side says of each hour, and of all of them together."""
        step = self._step
        sides: dict[Literal["ledger", "claude"], Mapping[datetime, TokenCounts]]
        sides = {"ledger": _by_hour(served)}
        if reported is not None:
            sides["claude"] = _by_hour(reported)
        hours = list(_each(step.start, step.end, HOUR))
        async with transaction(self._ledger) as tx:
            for side, counts in sides.items():
                sums = [
                    (hour, str(kind), counts[hour][position])
                    for hour in hours
                    for position, kind in enumerate(TOKEN_KINDS)
                ]
                await tally_hours.put(tx, side, sums)
                total = NOTHING
                for hour in hours:
                    total = total.plus(counts[hour])
                told = {str(kind): count for kind, count in total.by_kind().items()}
                await reconciliations.note_totals(tx, step.reconciliation_id, side, told)


def _each(start: datetime, end: datetime, step: timedelta) -> Iterator[datetime]:
    at = start.astimezone(UTC)
    while at < end:
        yield at
        at += step


def _runs(hours: Sequence[datetime]) -> Iterator[tuple[datetime, datetime]]:
    """Yield spans of hours that follow each other, none longer than is told by the minute."""
    start = end = None
    for hour in hours:
        if start is None or end is None or hour != end or end - start >= _BY_MINUTE_AT_MOST * HOUR:
            if start is not None and end is not None:
                yield start, end
            start = hour
        end = hour + HOUR
    if start is not None and end is not None:
        yield start, end


def _by_hour(
    told: Mapping[At, Reported] | Mapping[At, Served],
) -> defaultdict[datetime, TokenCounts]:
    sums: defaultdict[datetime, TokenCounts] = defaultdict(TokenCounts)
    for (_, hour), each in told.items():
        sums[hour] = sums[hour].plus(each.counts)
    return sums


def _words(found: int, not_served: int, *, left_out: bool) -> str:
    words = several(found, "difference") if found else "nothing differs"
    if left_out:
        words += "; something is too early to be judged, and left to the next run"
    if not_served:
        words += f"; {several(not_served, 'call')} of unknown outcome not served"
    return words
