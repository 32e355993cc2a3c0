"""The repair `collect_later`: what a final invoice got wrong is a line of the next statement.

One subject, the customer. Facts: `amount_nano_usd`, positive where Stripe has collected too
little.

A meter that is wrong need not mean that money is. An invoice is compared with its statement before
it is made final, and where Stripe was quicker an item of ours makes up for the difference
(`activities.invoicing`). So the invoices of the period are looked at, and no more is booked than
they are off by. Booking is a row whose key is the discrepancy, so that it happens once.
"""

from activities.collecting import OnInvoices
from activities.repair_calls import RepairCalls, Unanswered
from activities.repairing import Case, Done, Outcome, Ready, Refused
from activities.stripe_invoices import Line
from tallystick.ledger import accounts, collection_corrections
from tallystick.ledger.collection_corrections import MeteredPeriod, metered_period
from tallystick.ledger.database import Ledger
from tallystick.ledger.reconciliation_tables import Repair
from tallystick.money import from_nano_usd, plain
from tallystick.plans.cents import NANO_PER_CENT


class CollectLater:
    """Books corrections in `ledger`; `calls` reads the invoices."""

    def __init__(self, ledger: Ledger, calls: RepairCalls):
        self._ledger = ledger
        self._calls = calls

    async def look(self, case: Case) -> Ready | Outcome:
        """Tell whether the period's invoices are off by so much, and a statement is to come."""
        amount, at = case.facts["amount_nano_usd"], case.discrepancy.start_at
        async with self._ledger.begin() as tx:
            account = await accounts.get(tx, case.subject)
            period = await metered_period(tx, case.subject, at)
        if account is None or period is None:
            return Refused(
                f"no final invoice has collected what the meter counted at {at.isoformat()}; one "
                "that is open is made right before it is final"
            )
        if account.cancel_at is not None and account.cancel_at <= account.closed_until:
            return Refused("the account has ended: no statement is to come; settle it in Stripe")
        missing = await self._missing(period)
        if not isinstance(missing, int):
            return missing
        if missing == 0:
            return Refused(
                f"the invoices of period {period.ordinal} collect what its statement says: only "
                "the meter is wrong and no money; it can be dismissed"
            )
        if (missing > 0) != (amount > 0) or abs(missing) < abs(amount):
            return Refused(
                f"the invoices of period {period.ordinal} {_lack(missing)}, and not {_usd(amount)}"
            )
        more = "collects" if amount > 0 else "gives back"
        return Ready(
            f"the next statement {more} {_usd(amount)} that the meter of period {period.ordinal} "
            "got wrong"
        )

    async def _missing(self, period: MeteredPeriod) -> int | Unanswered:
        """Return what is not collected of the metered line yet, in nano-USD; negative if too much.

        An item of ours that makes up for a part of it is in whole cents.
        """
        found: list[Line] = []
        for invoice_id in period.invoices:
            lines = await self._calls.lines(invoice_id)
            if not isinstance(lines, list):
                return lines
            found += lines
        units = sum(int(line.quantity or 0) for line in found if line.kind == "metered")
        ours = OnInvoices(found, held=False).ours(period.statement_id).get(period.line, [])
        made_up = sum(line.amount_cents for line in ours) * NANO_PER_CENT
        return period.amount_nano_usd - units - made_up - period.corrected_nano_usd

    async def act(self, case: Case, begun: Repair) -> Outcome:
        """Book it."""
        amount = case.facts["amount_nano_usd"]
        async with self._ledger.begin() as tx:
            await collection_corrections.add(
                tx,
                discrepancy_id=case.discrepancy_id,
                customer_id=begun.subject,
                amount_nano_usd=amount,
                reason=case.discrepancy.words,
                at=case.now,
            )
        return Done(
            f"the next statement {'collects' if amount > 0 else 'gives back'} {_usd(amount)}"
        )


def _usd(nano_usd: int) -> str:
    return f"${plain(from_nano_usd(abs(nano_usd)))}"


def _lack(nano_usd: int) -> str:
    return f"{'lack' if nano_usd > 0 else 'have collected too much by'} {_usd(nano_usd)}"
