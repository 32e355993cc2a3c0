"""`apply_repairs` and `tallystick reconcile apply`: what a discrepancy's proposal says, done once.

Each subject of a proposal is a row of its own (`ledger.discrepancies`): committed before the act,
completed after it. Whoever finds a row without an outcome does the act again, and each repair's own
file says why that does no harm. A row with an outcome is never done again, whoever asks. The
discrepancy is locked only while rows are written, never across a call to Stripe.

A discrepancy that was repaired stands so until a comparison has shown that both sides agree; one
that still differs is open again, and its rows from before say what was tried.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from stripe import StripeClient
from temporalio import activity

from activities.failures import failure
from activities.heartbeats import heartbeating
from activities.metering import MeteringActivities
from activities.repair_attempts import SettleAttempts
from activities.repair_calls import RepairCalls
from activities.repair_cancelling import CancelEvent
from activities.repair_collection import CollectLater
from activities.repair_correction import CorrectMeter
from activities.repair_enqueuing import EnqueueEvents
from activities.repair_resending import Resend
from activities.repairing import Case, Done, Later, Outcome, Ready, Refused, RepairStep
from activities.stripe_clients import Refusal
from activities.stripe_meters import MeterTransport
from tallystick.contracts import Reconciled, ReconcileStep
from tallystick.errors import LEDGER_UNAVAILABLE, Action
from tallystick.ledger import discrepancies
from tallystick.ledger.database import Ledger, LedgerUnavailableError
from tallystick.ledger.reconciliation_tables import Discrepancy, DiscrepancyState, Repair
from tallystick.reconciling.findings import AUTOMATIC, RepairKind
from tallystick.reconciling.words import several

By = Literal["automatic", "operator"]

_STATE_AFTER = {RepairKind.COLLECT_LATER: DiscrepancyState.SETTLED}
"""What is booked needs no other look; all else stands as repaired until the next comparison."""


class UnknownDiscrepancyError(LookupError):
    """There is no discrepancy of that id."""


@dataclass(frozen=True, slots=True)
class RepairedSubject:
    """What became of one subject, or would in a dry run (`ready`); `words` say it.

    `at` is when it was done or refused, None where neither is known; `earlier` says that it was
    before this call.
    """

    subject: str
    outcome: Literal["ready", "done", "refused", "later"]
    words: str
    at: datetime | None = None
    earlier: bool = False
    trouble: Refusal | None = None


@dataclass(frozen=True, slots=True)
class AppliedRepair:
    """What applying a discrepancy's proposal came to; `repair` is None where none is proposed.

    `state` is how the discrepancy stands afterwards, `calls` the calls made to Stripe.
    """

    discrepancy_id: int
    repair: RepairKind | None
    state: DiscrepancyState
    words: str
    subjects: tuple[RepairedSubject, ...] = ()
    calls: int = 0

    @property
    def done_now(self) -> bool:
        """Whether this very call has done something."""
        return any(each.outcome == "done" and not each.earlier for each in self.subjects)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Repairs:
    """Repairs what reconciliation has found.

    Args:
        ledger: whose discrepancies these are.
        client: the way to Stripe for single events, cancellations and invoices.
        transport: the usual way of the outbox, for events that it has to deliver.
        clock: tells the present to what delivers the outbox.
    """

    def __init__(
        self,
        ledger: Ledger,
        client: StripeClient,
        transport: MeterTransport,
        *,
        clock: Callable[[], datetime] = _utc_now,
    ):
        self._ledger = ledger
        self._client = client
        self._summaries = transport.summaries
        self._metering = MeteringActivities(ledger, transport, linger=0, clock=clock)

    @activity.defn
    async def apply_repairs(self, step: ReconcileStep) -> Reconciled:
        """Make every repair that is safe without a person, of whatever is open by now.

        Raises:
            ApplicationError: `LedgerUnavailable`, or what Stripe answered, to be tried again once
                all that could be done was.
        """
        async with heartbeating():
            try:
                applied = await self._apply_all(step)
            except LedgerUnavailableError as error:
                raise failure(LEDGER_UNAVAILABLE, f"the ledger is away: {error}") from error
        subjects = [subject for each in applied for subject in each.subjects]
        for trouble in (each.trouble for each in subjects if each.trouble is not None):
            if trouble.row.action is Action.RETRY:
                raise failure(trouble.row, trouble.message, retry_after=trouble.retry_after)
        repaired = sum(each.done_now for each in applied)
        refused = sum(each.outcome == "refused" and not each.earlier for each in subjects)
        waiting = sum(each.outcome == "later" for each in subjects)
        return Reconciled(
            words=f"{several(repaired, 'difference')} repaired, "
            f"{several(refused, 'repair')} refused, {waiting:,} put off",
            found=repaired,
            calls=sum(each.calls for each in applied),
            again=waiting > 0,
        )

    async def _apply_all(self, step: ReconcileStep) -> list[AppliedRepair]:
        async with self._ledger.begin() as tx:
            ids = await discrepancies.open_automatic(tx)
        return [
            await self.apply(
                each,
                by="automatic",
                dry_run=False,
                now=step.now,
                reconciliation_id=step.reconciliation_id,
            )
            for each in ids
        ]

    async def apply(
        self,
        discrepancy_id: int,
        *,
        by: By,
        dry_run: bool,
        now: datetime,
        reconciliation_id: int | None = None,
    ) -> AppliedRepair:
        """Do what a discrepancy's proposal says, subject by subject; or say what would be done.

        A dry run looks and changes nothing. What was done before is told and not done again.

        Args:
            discrepancy_id: which.
            by: `automatic` does only what is safe without a person.
            dry_run: whether to say only what would be done.
            now: the instant it is done at.
            reconciliation_id: the run it is done in; without one, that which found it.

        Raises:
            UnknownDiscrepancyError: there is none of that id.
            LedgerUnavailableError: when PostgreSQL is away.
        """
        async with self._ledger.begin() as tx:
            found = await discrepancies.get(tx, discrepancy_id)
            tried = await discrepancies.repairs_of(tx, discrepancy_id)
        if found is None:
            raise UnknownDiscrepancyError(f"no discrepancy has the id {discrepancy_id}")
        kind = _proposed(found)
        if found.state != DiscrepancyState.OPEN or kind is None or found.proposal is None:
            return _nothing_to_do(found, kind, tried)
        if by == "automatic" and not (kind in AUTOMATIC and found.proposal["automatic"]):
            return AppliedRepair(discrepancy_id, kind, found.state, "a person decides")
        calls = RepairCalls(self._client, self._summaries)
        step = self._step(kind, calls)
        subjects: list[RepairedSubject] = []
        for subject, facts in found.proposal["subjects"].items():
            run = reconciliation_id or found.found_by
            case = Case(found, subject, facts, by, run, now)
            known = next((each for each in tried if _is(each, kind, subject)), None)
            subjects.append(
                _earlier(known)
                if known is not None and known.outcome is not None
                else await self._one(kind, step, case, dry_run=dry_run)
            )
        state = found.state if dry_run else await self._conclude(found, kind, subjects, now)
        words = found.proposal["words"]
        return AppliedRepair(discrepancy_id, kind, state, words, tuple(subjects), calls.made)

    def _step(self, kind: RepairKind, calls: RepairCalls) -> RepairStep:
        match kind:
            case RepairKind.SETTLE_ATTEMPTS:
                return SettleAttempts(self._ledger)
            case RepairKind.ENQUEUE_EVENTS:
                return EnqueueEvents(self._ledger, self._metering)
            case RepairKind.RESEND:
                return Resend(self._ledger, calls, self._metering)
            case RepairKind.CANCEL_EVENT:
                return CancelEvent(self._ledger, calls)
            case RepairKind.CORRECT_METER:
                return CorrectMeter(self._ledger, calls)
            case RepairKind.COLLECT_LATER:
                return CollectLater(self._ledger, calls)

    # --- One subject ------------------------------------------------------------------------------
    async def _one(
        self, kind: RepairKind, step: RepairStep, case: Case, *, dry_run: bool
    ) -> RepairedSubject:
        found = await step.look(case)
        if dry_run or isinstance(found, Later):
            return _told(case.subject, found)
        begun = await self._begin(kind, case)
        if begun is None:
            return _told(case.subject, Later("it stands otherwise since a moment ago; look again"))
        if begun.outcome is not None:
            return _earlier(begun)
        outcome = await step.act(case, begun) if isinstance(found, Ready) else found
        if isinstance(outcome, Later):
            return _told(case.subject, outcome)
        async with self._ledger.begin() as tx:
            told = "done" if isinstance(outcome, Done) else "refused"
            await discrepancies.complete_repair(tx, begun, told, outcome.words, case.now)
        return _told(case.subject, outcome, case.now)

    async def _begin(self, kind: RepairKind, case: Case) -> Repair | None:
        """Commit that the repair is about to be made; None where it is no longer proposed so."""
        async with self._ledger.begin() as tx:
            found = await discrepancies.get(tx, case.discrepancy_id, locked=True)
            assert found is not None  # noqa: S101 - discrepancies are never removed
            if found.state != DiscrepancyState.OPEN or found.proposal != case.discrepancy.proposal:
                return None
            return await discrepancies.begin_repair(
                tx, case.discrepancy_id, kind, case.subject, by=case.by, at=case.now
            )

    async def _conclude(
        self,
        seen: Discrepancy,
        kind: RepairKind,
        subjects: Sequence[RepairedSubject],
        now: datetime,
    ) -> DiscrepancyState:
        """Say how the discrepancy stands once every subject has an outcome."""
        # What was done before the discrepancy was found open (again) has not mended it.
        current = [
            each
            for each in subjects
            if not each.earlier or (each.at is not None and each.at >= seen.changed_at)
        ]
        done = any(each.outcome == "done" for each in current)
        news = any(not each.earlier for each in current)
        if any(each.outcome == "later" for each in subjects) or not (done or news):
            return seen.state
        async with self._ledger.begin() as tx:
            found = await discrepancies.get(tx, seen.discrepancy_id or 0, locked=True)
            assert found is not None  # noqa: S101 - discrepancies are never removed
            if found.state == DiscrepancyState.OPEN:
                state = _STATE_AFTER.get(kind, DiscrepancyState.REPAIRED) if done else found.state
                words = "; ".join(dict.fromkeys(each.words for each in current))
                await discrepancies.change_state(tx, found, state, words, at=now)
        return found.state


# --- Telling --------------------------------------------------------------------------------------
def _proposed(found: Discrepancy) -> RepairKind | None:
    return RepairKind(found.proposal["repair"]) if found.proposal else None


def _is(repair: Repair, kind: RepairKind, subject: str) -> bool:
    return (repair.repair, repair.subject) == (kind, subject)


def _told(subject: str, found: Ready | Outcome, at: datetime | None = None) -> RepairedSubject:
    match found:
        case Ready():
            return RepairedSubject(subject, "ready", found.words)
        case Done():
            return RepairedSubject(subject, "done", found.words, at)
        case Refused():
            return RepairedSubject(subject, "refused", found.words, at)
        case Later():
            return RepairedSubject(subject, "later", found.words, trouble=found.trouble)


def _earlier(repair: Repair) -> RepairedSubject:
    return RepairedSubject(
        repair.subject,
        "done" if repair.outcome == "done" else "refused",
        repair.words or "",
        repair.done_at,
        earlier=True,
    )


def _nothing_to_do(
    found: Discrepancy, kind: RepairKind | None, tried: Sequence[Repair]
) -> AppliedRepair:
    ended = tuple(_earlier(each) for each in tried if each.outcome is not None)
    done = any(each.outcome == "done" for each in ended)
    words = (
        "nothing is proposed that could be done"
        if found.state == DiscrepancyState.OPEN
        else f"it is {found.state}{'; done already' if done else ', nothing is to be done'}"
    )
    return AppliedRepair(found.discrepancy_id or 0, kind, found.state, words, ended)
