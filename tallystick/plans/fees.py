"""What it costs to be paid: the processor's fee on an invoice (requirement 47)."""

from dataclasses import dataclass
from decimal import Decimal

from tallystick.money import times


@dataclass(frozen=True, slots=True)
class FeeTerms:
    """A share of the amount and a fixed part for each payment, in percent and US dollars."""

    percent: Decimal
    fixed_usd: Decimal

    def fee(self, paid_cents: int, payments: int = 1) -> Decimal:
        """Return the fee on a payment, or on several together, exactly.

        Nothing paid costs nothing.
        """
        if paid_cents <= 0:
            return Decimal(0)
        share = times(self.percent, Decimal(paid_cents).scaleb(-4))
        return share + times(payments, self.fixed_usd)
