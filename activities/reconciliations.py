"""The two ends of a reconciliation: its row and its hours, and what it came to.

`open_reconciliation` decides the hours, once: they are in the run's row, which a repeated step
meets by the workflow run's id, whatever has changed meanwhile. `close_reconciliation` adds up what
the comparisons have left in the ledger, and raises a notice for each discrepancy that is larger
than is tolerated, in the transaction that closes the run. A notice's key is the discrepancy's, so
an operator hears once of a place, however many runs see it.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta

from temporalio import activity

from activities.failures import failure
from activities.transactions import transaction
from tallystick.contracts import (
    CloseReconciliation,
    OpenedReconciliation,
    OpenReconciliation,
    ReconcileResult,
    ReconcileStep,
)
from tallystick.errors import INVALID_REQUEST
from tallystick.ledger import discrepancies, reconciliations
from tallystick.ledger.database import Ledger, Transaction
from tallystick.ledger.notices import raise_notice
from tallystick.ledger.reconciliation_tables import Discrepancy, DiscrepancyState, Reconciliation
from tallystick.money import plain
from tallystick.reconciling.findings import Cause, Pair
from tallystick.reconciling.intervals import interval_of
from tallystick.reconciling.tolerance import exceeds
from tallystick.reconciling.words import CAUSES, CLAUDE_STATES, PAIRS, how_much, when

log = logging.getLogger("tallystick.reconciliation")

_NO_ALARM = (DiscrepancyState.EXPLAINED, DiscrepancyState.DISMISSED)
_UNSETTLED = (DiscrepancyState.OPEN, DiscrepancyState.REPAIRED)


class ReconciliationActivities:
    """Opens and closes runs in `ledger`.

    Args:
        ledger: keeps runs and what they find.
        tolerance_tokens: a difference of more tokens is told to the operators.
        settles: how long Stripe is given to count what it has acknowledged.
    """

    def __init__(self, ledger: Ledger, tolerance_tokens: int, settles: timedelta):
        self._ledger = ledger
        self._tolerance = tolerance_tokens
        self._settles = settles

    @activity.defn
    async def open_reconciliation(self, wanted: OpenReconciliation) -> OpenedReconciliation:
        """Decide which hours the run compares, and enter it; repeated, return what was decided.

        Raises:
            ApplicationError: `InvalidRequest`, where the hours asked for cannot be compared.
        """
        async with transaction(self._ledger) as tx:
            try:
                interval = interval_of(
                    wanted.order,
                    scheduled_at=wanted.scheduled_at,
                    now=wanted.now,
                    compared_until=await reconciliations.compared_until(tx),
                )
            except ValueError as error:
                raise failure(INVALID_REQUEST, str(error)) from None
            opened = await reconciliations.open_run(
                tx,
                run=wanted.run,
                kind=wanted.order.kind,
                start=interval.start,
                end=interval.end,
                at=wanted.now,
            )
            run = await reconciliations.get(tx, opened)
        step = ReconcileStep(
            reconciliation_id=opened,
            kind=wanted.order.kind,
            start=run.start_at,
            end=run.end_at,
            now=wanted.now,
        )
        return OpenedReconciliation(step=step, settles=self._settles)

    @activity.defn
    async def close_reconciliation(self, closing: CloseReconciliation) -> ReconcileResult:
        """Say what the run came to, and tell the operators what they have to know of it."""
        step = closing.step
        by_state, tokens = Counter[str](), 0
        exceeding: list[Discrepancy] = []
        async with transaction(self._ledger) as tx:
            await reconciliations.close_run(tx, step.reconciliation_id, step.now)
            run = await reconciliations.get(tx, step.reconciliation_id)
            async for found in discrepancies.find(tx, start=step.start, end=step.end):
                by_state[found.state] += 1
                tokens += found.tokens
                if self._exceeds(found) and found.state not in _NO_ALARM:
                    exceeding.append(found)
            for found in exceeding:
                await self._tell(tx, found, step)
            failed = dict(closing.failed)
            if run.claude_state == "unavailable":
                failed["read Claude's reports"] = CLAUDE_STATES[run.claude_state]
            for name, why in failed.items():
                await self._tell_failed(tx, run, name, why, step)
        assert run.claude_state is not None  # noqa: S101 - closing it has set it
        over = sum(found.state in _UNSETTLED for found in exceeding)
        return ReconcileResult(
            reconciliation_id=step.reconciliation_id,
            start=step.start,
            end=step.end,
            claude_state=run.claude_state,
            discrepancies=dict(by_state),
            tokens=tokens,
            over_tolerance=over,
            failed=failed,
            words=_in_words(by_state, over, run.claude_state),
        )

    def _exceeds(self, found: Discrepancy) -> bool:
        return exceeds(Pair(found.pair), found.tokens, found.usd, self._tolerance)

    async def _tell(self, tx: Transaction, found: Discrepancy, step: ReconcileStep) -> None:
        message = (
            f"{PAIRS[Pair(found.pair)]} differ by {how_much(found.tokens, found.usd)}, "
            f"{when(found.start_at, found.end_at)} ({CAUSES[Cause(found.cause)]}): {found.words} "
            f"{_what_now(found)}"
        )
        news = await raise_notice(
            tx,
            None,
            key=f"discrepancy:{found.key}",
            kind="discrepancy",
            audience="operator",
            message=message[0].upper() + message[1:],
            facts={
                "discrepancy_id": found.discrepancy_id,
                "reconciliation_id": step.reconciliation_id,
                "pair": found.pair,
                "kind": found.kind,
                "cause": found.cause,
                "customer_id": found.customer_id,
                "start": found.start_at.isoformat(),
                "end": found.end_at.isoformat(),
                "tokens": found.tokens,
                "usd": None if found.usd is None else plain(found.usd),
                "state": found.state,
            },
            at=step.now,
        )
        if news:
            log.warning("discrepancy %s, %s, %s: %s", found.discrepancy_id, found.pair,
                        found.cause, message)  # fmt: skip

    async def _tell_failed(
        self, tx: Transaction, run: Reconciliation, name: str, why: str, step: ReconcileStep
    ) -> None:
        message = (
            f"The reconciliation of {when(run.start_at, run.end_at)} could not {name}: {why}. The "
            "other records were compared, and the next run does this again."
        )
        await raise_notice(
            tx,
            None,
            key=f"reconciliation-failed:{name}:{step.now:%Y-%m-%d}",  # an outage is told once a day
            kind="reconciliation_failed",
            audience="operator",
            message=message,
            facts={"reconciliation_id": step.reconciliation_id, "step": name, "why": why},
            at=step.now,
        )
        log.warning("reconciliation %s: %s failed: %s", step.reconciliation_id, name, why)


def _in_words(by_state: Mapping[str, int], over: int, claude_state: str) -> str:
    states = ", ".join(f"{count:,} {state}" for state, count in by_state.items())
    beyond = f", {over:,} of them larger than is tolerated and not settled" if over else ""
    found = f"differences: {states}{beyond}" if by_state else "no differences"
    claude = "" if claude_state == "compared" else f"; {CLAUDE_STATES[claude_state]}"
    return f"{found}{claude}"


def _what_now(found: Discrepancy) -> str:
    match found.state:
        case DiscrepancyState.SETTLED:
            return "It is settled by now."
        case DiscrepancyState.REPAIRED:
            return "It is repaired, and the other side has still to show it."
        case _ if found.proposal is not None:
            return f"`tallystick reconcile apply {found.discrepancy_id}` shows what can be done."
        case _:
            return f"`tallystick reconcile show {found.discrepancy_id}` shows all that is known."
