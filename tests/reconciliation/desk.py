"""Discrepancies between an outbox and a Stripe on loopback, reported as a comparison would."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from temporalio.testing import ActivityEnvironment

from activities.repairs import AppliedRepair, By, Repairs
from activities.stripe_meters import EventTransport
from tallystick.contracts import Reconciled, ReconcileStep
from tallystick.ledger import customers, discrepancies, reconciliations
from tallystick.ledger.database import Ledger
from tallystick.ledger.reconciliation_tables import Discrepancy, DiscrepancyState
from tallystick.reconciling.findings import Cause, Finding, Kind, Pair, Proposal, RepairKind
from tests.metering.stand import MeteringStand

SETTLES = timedelta(minutes=5)


@dataclass(frozen=True)
class Found:
    """A discrepancy, and the finding it came from."""

    id: int
    finding: Finding


class Desk:
    """Where discrepancies of a stand are found and repaired; `ledger` may be interrupted."""

    def __init__(self, stand: MeteringStand, ledger: Ledger):
        self.stand = stand
        self._ledger = ledger
        client = stand.stripe.client()
        self.repairs = Repairs(ledger, client, EventTransport(client), clock=stand.now)

    async def find(
        self,
        repair: RepairKind,
        subjects: Mapping[str, Mapping[str, Any]],
        *,
        customer: str = "acme",
        meter: str,
        at: datetime,
        automatic: bool = False,
    ) -> Found:
        """Report that a customer's minute on a meter differs, with what would mend it."""
        start = at.replace(second=0, microsecond=0)
        finding = Finding(
            pair=Pair.OUTBOX_STRIPE,
            kind=Kind.NOT_COUNTED,
            start=start,
            end=start + timedelta(minutes=1),
            place={"customer_id": customer, "meter": meter},
            amounts={"input": {"outbox": 1, "stripe": 0}},
            cause=Cause.UNKNOWN,
            words="It differs.",
            proposal=Proposal(repair, "It can be mended.", subjects, automatic),
        )
        return await self.report(finding)

    async def report(self, finding: Finding) -> Found:
        now = self.stand.now()
        async with self.stand.ledger.begin() as tx:
            run = await reconciliations.open_run(
                tx, run=f"run {now}", kind="manual", start=now, end=now, at=now
            )
            row = await discrepancies.report(
                tx, finding, reconciliation_id=run, settles=SETTLES, at=now
            )
        assert row.discrepancy_id is not None
        return Found(row.discrepancy_id, finding)

    async def propose(self, found: Found, subject: str) -> None:
        """Report the same with another subject, as the next comparison would."""
        proposal = found.finding.proposal
        assert proposal is not None
        (facts,) = proposal.subjects.values()
        other = replace(proposal, subjects={subject: facts})
        await self.report(replace(found.finding, proposal=other))

    async def apply(
        self, found: Found, *, by: By = "operator", dry_run: bool = False
    ) -> AppliedRepair:
        return await self.repairs.apply(found.id, by=by, dry_run=dry_run, now=self.stand.now())

    async def step(self) -> Reconciled:
        """Run the activity as a worker would."""
        now = self.stand.now()
        step = ReconcileStep(reconciliation_id=1, kind="manual", start=now, end=now, now=now)
        return await ActivityEnvironment().run(self.repairs.apply_repairs, step)

    async def discrepancy(self, found: Found) -> Discrepancy:
        async with self.stand.ledger.begin() as tx:
            row = await discrepancies.get(tx, found.id)
        assert row is not None
        return row

    async def state(self, found: Found) -> DiscrepancyState:
        return (await self.discrepancy(found)).state

    async def told(self, found: Found) -> list[str]:
        """Return what is written of the discrepancy and its repairs."""
        async with self.stand.ledger.begin() as tx:
            events = await discrepancies.history(tx, found.id)
            tried = await discrepancies.repairs_of(tx, found.id)
        return [
            *(f"{each.state}: {each.words}" for each in events),
            *(f"{each.repair} {each.subject} {each.outcome} by {each.by}" for each in tried),
        ]

    async def counted(self, customer: str = "acme") -> int:
        """Return what Stripe counts of a customer, all meters together."""
        name = await self.stripe_customer(customer)
        totals = (await self.stand.stripe.totals())["by_customer"]
        return sum(int(each["sum"]) for each in totals if each["customer"] == name)

    async def stripe_customer(self, customer: str = "acme") -> str:
        async with self.stand.ledger.begin() as tx:
            row = await customers.get(tx, customer)
        assert row is not None
        assert row.stripe_customer_id is not None
        return row.stripe_customer_id
