"""A turn: what the ledger knows of one billed reply, and nothing of what was said.

Money is the customer's, the charge: whoever asks why a bill grew means what is on it. A charge is
one amount for the whole reply, so it is spread over the bill's lines in proportion to their cost.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal

from tallystick.contracts import BillLine
from tallystick.pricing import TokenCounts

WIDE = Context(prec=60, rounding=ROUND_HALF_EVEN)
"""For shares and averages, which have no end; what is shown of them is rounded to nano-USD."""
NANO = Decimal("1e-9")


@dataclass(frozen=True, slots=True)
class Turn:
    """One billed reply; its place in a conversation where it has one.

    `cost_usd` is the provider's price and `charge_usd` what the customer pays, both None while the
    price is unknown.
    """

    request_id: str
    conversation_id: str | None
    served_at: datetime
    model: str
    tokens: TokenCounts
    lines: tuple[BillLine, ...]
    cost_usd: Decimal | None
    charge_usd: Decimal | None

    @property
    def charged_per_cost(self) -> Decimal:
        """Dollars charged for each dollar of cost; zero where nothing was charged or known."""
        if not self.cost_usd or self.charge_usd is None:
            return Decimal(0)
        return WIDE.divide(self.charge_usd, self.cost_usd)


def to_nano(amount: Decimal) -> Decimal:
    """Round an average or a share to nano-USD, so that differences of such are exact."""
    return amount.quantize(NANO, context=WIDE)


def wide_sum(amounts: Iterable[Decimal]) -> Decimal:
    """Add up at 60 digits, where `money.total` would refuse the endless ones."""
    result = Decimal(0)
    for amount in amounts:
        result = WIDE.add(result, amount)
    return result
