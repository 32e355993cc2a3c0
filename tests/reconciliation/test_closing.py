"""The two ends of a run, on a real ledger: its hours are decided once, its news told once."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.reconciliations import ReconciliationActivities
from tallystick.contracts import (
    CloseReconciliation,
    OpenedReconciliation,
    OpenReconciliation,
    ReconcileOrder,
    ReconcileResult,
    RunKind,
)
from tallystick.ledger import discrepancies, notices, reconciliations
from tallystick.ledger.account_tables import Notice
from tallystick.ledger.database import Ledger
from tallystick.ledger.reconciliation_tables import DiscrepancyState
from tallystick.reconciling.findings import Cause, Finding, Kind, Pair

TODAY = datetime(2026, 3, 11, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TOLERANCE = 100
SETTLES = timedelta(minutes=5)


class Books:
    """A ledger, and the activities on it."""

    def __init__(self, ledger: Ledger):
        self.ledger = ledger
        self._ends = ReconciliationActivities(ledger, TOLERANCE, SETTLES)

    async def open(
        self, run: str, at: datetime, kind: RunKind = "hourly", **order: Any
    ) -> OpenedReconciliation:
        scheduled = None if order else at
        wanted = OpenReconciliation(
            order=ReconcileOrder(kind=kind, **order), run=run, scheduled_at=scheduled, now=at
        )
        return await ActivityEnvironment().run(self._ends.open_reconciliation, wanted)

    async def close(self, opened: OpenedReconciliation, **failed: str) -> ReconcileResult:
        closing = CloseReconciliation(step=opened.step, failed=failed)
        return await ActivityEnvironment().run(self._ends.close_reconciliation, closing)

    async def reports_are(self, opened: OpenedReconciliation, state: str) -> None:
        async with self.ledger.begin() as tx:
            await reconciliations.note_claude(tx, opened.step.reconciliation_id, state, None)

    async def differs(self, opened: OpenedReconciliation, finding: Finding) -> int:
        step = opened.step
        async with self.ledger.begin() as tx:
            row = await discrepancies.report(
                tx, finding, reconciliation_id=step.reconciliation_id, settles=SETTLES, at=step.now
            )
        assert row.discrepancy_id is not None
        return row.discrepancy_id

    async def told(self) -> list[Notice]:
        async with self.ledger.begin() as tx:
            return [*await notices.waiting(tx, None)]


@pytest.fixture
def books(ledger: Ledger) -> Books:
    return Books(ledger)


def _finding(hour: int = 3, **changes: Any) -> Finding:
    values: dict[str, Any] = {
        "pair": Pair.CLAUDE_LEDGER,
        "kind": Kind.UNRECORDED_USAGE,
        "start": TODAY + hour * HOUR,
        "end": TODAY + (hour + 1) * HOUR,
        "place": {"model": "claude-haiku-5-5"},
        "amounts": {"input": {"claude": 2_000, "ledger": 0}},
        "cause": Cause.OUTSIDE_USAGE,
        "words": "Somebody else used the key.",
        "tokens": 2_000,
        **changes,
    }
    return Finding(**values)


async def test_a_repeated_first_step_meets_the_run_and_its_hours(books: Books) -> None:
    first = await books.open("run", TODAY + 9 * HOUR)
    again = await books.open("run", TODAY + 11 * HOUR)
    assert again.step.model_copy(update={"now": first.step.now}) == first.step
    assert (first.step.start, first.step.end) == (TODAY - 3 * HOUR, TODAY + 9 * HOUR)
    other = await books.open("other", TODAY + 9 * HOUR)
    assert other.step.reconciliation_id != first.step.reconciliation_id


async def test_hours_that_are_not_over_are_refused_for_good(books: Books) -> None:
    with pytest.raises(ApplicationError, match="end: the hours until") as refused:
        await books.open("run", TODAY, "manual", start=TODAY, end=TODAY + HOUR)
    assert refused.value.non_retryable
    async with books.ledger.begin() as tx:
        assert await reconciliations.latest(tx, 1, start=TODAY, end=TODAY + DAY) == []


async def test_days_without_reports_are_made_up_for_until_they_are_compared(books: Books) -> None:
    async def run(day: int, state: str | None) -> tuple[datetime, datetime]:
        opened = await books.open(f"run-{day}", TODAY + day * DAY + 2 * HOUR, "daily")
        if state is not None:
            await books.reports_are(opened, state)
        closed = await books.close(opened)
        assert closed.claude_state == (state or "unsettled")
        return opened.step.start, opened.step.end

    assert await run(0, "compared") == (TODAY - DAY, TODAY)
    assert await run(1, None) == (TODAY, TODAY + DAY)
    assert await run(2, None) == (TODAY, TODAY + 2 * DAY)
    assert await run(3, "compared") == (TODAY, TODAY + 3 * DAY)
    assert await run(4, "no_admin_key") == (TODAY + 3 * DAY, TODAY + 4 * DAY)
    # Hourly runs have no part in it.
    await books.close(await books.open("hourly", TODAY + 4 * DAY + 9 * HOUR))
    assert await run(5, "compared") == (TODAY + 4 * DAY, TODAY + 5 * DAY)


async def test_each_place_over_tolerance_is_told_once_with_its_pair_and_cause(books: Books) -> None:
    opened = await books.open("run", TODAY + 9 * HOUR)
    await books.reports_are(opened, "compared")
    large = await books.differs(opened, _finding())
    await books.differs(opened, _finding(4, tokens=TOLERANCE))
    closed = await books.close(opened)
    assert (closed.discrepancies, closed.tokens) == ({"open": 2}, 2_000 + TOLERANCE)
    assert closed.over_tolerance == 1
    (notice,) = await books.told()
    assert (notice.audience, notice.customer_id) == ("operator", None)
    assert notice.message == (
        "Claude's usage report and the ledger differ by about 8 pages of text (2,000 tokens), "
        "2026-03-11 03:00 to 04:00 UTC (calls outside Tallystick): Somebody else used the key. "
        f"`tallystick reconcile show {large}` shows all that is known."
    )
    assert (notice.facts["pair"], notice.facts["cause"]) == ("claude-ledger", "outside_usage")

    again = await books.open("next", TODAY + 10 * HOUR)
    await books.differs(again, _finding(tokens=3_000, cause=Cause.UNKNOWN))
    assert (await books.close(again)).over_tolerance == 1
    assert await books.close(again) == await books.close(again)
    assert len(await books.told()) == 1


@pytest.mark.parametrize(
    ("pair", "usd", "told"),
    [
        (Pair.OUTBOX_STRIPE, Decimal("0.010000001"), True),
        (Pair.OUTBOX_STRIPE, Decimal("-0.02"), True),
        (Pair.LEDGER_OUTBOX, Decimal("0.02"), True),
        (Pair.COST_LEDGER, Decimal("0.02"), True),
        (Pair.COST_LEDGER, Decimal("0.01"), False),
        (Pair.CLAUDE_LEDGER, Decimal(5), False),
        (Pair.OUTBOX_STRIPE, None, False),
    ],
)
async def test_money_is_told_from_a_cent_on_where_money_is_collected(
    books: Books, pair: Pair, usd: Decimal | None, told: bool
) -> None:
    opened = await books.open("run", TODAY + 9 * HOUR)
    await books.differs(opened, _finding(pair=pair, usd=usd, tokens=0))
    assert (await books.close(opened)).over_tolerance == told
    assert len(await books.told()) == told


async def test_what_is_explained_or_dismissed_is_not_told_and_what_was_mended_is(
    books: Books,
) -> None:
    opened = await books.open("run", TODAY + 9 * HOUR)
    await books.differs(opened, _finding(1, explained=True))
    left, mended = [await books.differs(opened, _finding(hour)) for hour in (2, 3)]
    async with books.ledger.begin() as tx:
        for number, state in (
            (left, DiscrepancyState.DISMISSED),
            (mended, DiscrepancyState.SETTLED),
        ):
            row = await discrepancies.get(tx, number)
            assert row is not None
            await discrepancies.change_state(tx, row, state, "so be it", at=opened.step.now)
    assert (await books.close(opened)).over_tolerance == 0
    (notice,) = await books.told()
    assert notice.facts["discrepancy_id"] == mended
    assert notice.message.endswith("It is settled by now.")


async def test_a_step_that_failed_is_told_once_a_day(books: Books) -> None:
    for run, at in (("one", 9 * HOUR), ("two", 10 * HOUR), ("three", 33 * HOUR)):
        opened = await books.open(run, TODAY + at)
        closed = await books.close(opened, **{"count stars": "it is cloudy"})
        assert closed.failed == {"count stars": "it is cloudy"}
    first, second = await books.told()
    assert "could not count stars: it is cloudy." in first.message
    assert first.key != second.key


async def test_a_key_that_may_not_read_the_reports_is_told_like_a_step_that_failed(
    books: Books,
) -> None:
    opened = await books.open("run", TODAY + 9 * HOUR)
    await books.reports_are(opened, "unavailable")
    closed = await books.close(opened)
    assert list(closed.failed) == ["read Claude's reports"]
    (notice,) = await books.told()
    assert "could not be read with this ANTHROPIC_ADMIN_KEY" in notice.message
