"""Which differences an operator is told of at once: one rule for notices, runs and commands."""

from decimal import Decimal

from tallystick.reconciling.findings import Pair

TOLERATED_USD = Decimal("0.01")
"""A cent: what an invoice cannot show."""


def exceeds(pair: Pair, tokens: int, usd: Decimal | None, tolerance_tokens: int) -> bool:
    """Tell whether a difference is larger than is tolerated, in tokens or in money.

    What Claude reports is judged by its tokens alone: their worth is an estimate of ours. Between
    the other records money is collected, or is not.
    """
    if tokens > tolerance_tokens:
        return True
    return pair is not Pair.CLAUDE_LEDGER and usd is not None and abs(usd) > TOLERATED_USD
