"""The repair `settle_attempts`: what a lost call has cost us is booked, by what Claude reports.

Nothing outside the ledger changes, and an attempt is settled once (its key), so that doing it again
does nothing. Subjects and facts are those of `ledger.attempt_settlements.settle`.
"""

from activities.repairing import Case, Done, Outcome, Ready
from tallystick.ledger import attempt_settlements
from tallystick.ledger.database import Ledger
from tallystick.ledger.reconciliation_tables import Repair
from tallystick.reconciling.words import several


class SettleAttempts:
    """Books what lost calls cost."""

    def __init__(self, ledger: Ledger):
        self._ledger = ledger

    async def look(self, case: Case) -> Ready | Outcome:
        """Tell what would be booked; booking finds out by itself what is known by then."""
        return Ready(f"what Claude reports of {case.subject} is booked as our cost")

    async def act(self, case: Case, begun: Repair) -> Outcome:
        """Book it."""
        async with self._ledger.begin() as tx:
            settled = await attempt_settlements.settle(
                tx,
                reconciliation_id=case.reconciliation_id,
                discrepancy_id=case.discrepancy_id,
                subject=begun.subject,
                facts=case.facts,
                at=case.now,
            )
        if not settled:
            return Done("its outcome is known by now, or booked: nothing is left to book")
        return Done(f"{several(settled, 'call')} booked as Claude reports it, as our cost")
