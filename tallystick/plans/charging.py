"""From cost to charge: markup and discount per line, exact, then one rounding to nano-USD.

The rounding happens here and nowhere else before the invoice. Rounding each line instead would
add a bias that grows with the number of lines, and the sum of what Stripe was told would no longer
be the sum of what the ledger charged.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from tallystick.contracts import BillLine
from tallystick.money import from_nano_usd, times, to_nano_usd, total
from tallystick.plans.terms import PlanTerms


@dataclass(frozen=True, slots=True)
class Charge:
    """What the customer pays for one reply, in the whole nano-USD that Stripe is metered in."""

    nano_usd: int

    @property
    def usd(self) -> Decimal:
        """The same in dollars, exactly."""
        return from_nano_usd(self.nano_usd)


def charge(lines: Iterable[BillLine], terms: PlanTerms) -> Charge:
    """Charge the lines of a rated reply under the terms in force."""
    return Charge(
        to_nano_usd(total(times(terms.factor(line.kind), line.amount_usd) for line in lines))
    )


def highest_charge(cost_usd: Decimal, terms: PlanTerms) -> Charge:
    """Return the most that a reply of this cost can be charged, whatever its lines are."""
    return Charge(to_nano_usd(times(terms.highest_factor, cost_usd)))
