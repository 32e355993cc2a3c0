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
from tallystick.ledger.database import Ledger, Transaction
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
        async with self._ledger.begin() as tx:
            booked = await collection_corrections.is_booked(tx, case.discrepancy_id)
            account = await accounts.get(tx, case.subject)
            period = await _period(tx, case)
        if booked:
            return Done(_next_statement(case))
        if account is None or period is None:
            at = case.discrepancy.start_at.isoformat()
            return Refused(
                f"no final invoice has collected what the meter counted at {at}; one that is open "
                "is made right before it is final"
            )
        if account.cancel_at is not None and account.cancel_at <= account.closed_until:
            return Refused("the account has ended: no statement is to come; settle it in Stripe")
        lack = await self._lack(period)
        return _judge(case, period, lack) if isinstance(lack, int) else lack

    async def act(self, case: Case, begun: Repair) -> Outcome:
        """Book it, unless other corrections of its period have left nothing of it."""
        async with self._ledger.begin() as tx:
            period = await _period(tx, case)
        assert period is not None  # noqa: S101 - what is final stays so
        lack = await self._lack(period)
        if not isinstance(lack, int):
            return lack
        async with self._ledger.begin() as tx:
            # Final invoices never change, but somebody may have booked another correction.
            await accounts.lock(tx, case.subject)
            if await collection_corrections.is_booked(tx, case.discrepancy_id):
                return Done(_next_statement(case))
            found = _judge(case, await _period(tx, case) or period, lack)
            if not isinstance(found, Ready):
                return found
            await collection_corrections.add(
                tx,
                discrepancy_id=case.discrepancy_id,
                customer_id=begun.subject,
                amount_nano_usd=case.facts["amount_nano_usd"],
                reason=case.discrepancy.words,
                at=case.now,
            )
        return Done(_next_statement(case))

    async def _lack(self, period: MeteredPeriod) -> int | Unanswered:
        """Return what the invoices lack of the metered line in nano-USD; negative if too much.

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
        return period.amount_nano_usd - units - made_up


async def _period(tx: Transaction, case: Case) -> MeteredPeriod | None:
    return await metered_period(tx, case.subject, case.discrepancy.start_at)


def _judge(case: Case, period: MeteredPeriod, lack: int) -> Ready | Refused:
    amount, missing = case.facts["amount_nano_usd"], lack - period.corrected_nano_usd
    if missing == 0:
        return Refused(
            f"the invoices of period {period.ordinal} collect what its statement says: only the "
            "meter is wrong and no money; it can be dismissed"
        )
    if (missing > 0) != (amount > 0) or abs(missing) < abs(amount):
        off = "lack" if missing > 0 else "have collected too much by"
        return Refused(
            f"the invoices of period {period.ordinal} {off} {_usd(missing)}, and not {_usd(amount)}"
        )
    return Ready(f"{_next_statement(case)} that the meter of period {period.ordinal} got wrong")


def _next_statement(case: Case) -> str:
    amount = case.facts["amount_nano_usd"]
    return f"the next statement {'collects' if amount > 0 else 'gives back'} {_usd(amount)}"


def _usd(nano_usd: int) -> str:
    return f"${plain(from_nano_usd(abs(nano_usd)))}"
