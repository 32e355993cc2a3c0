"""Caching: the same prompt tokens, told as another kind of input, cache write or cache read.

The prompt is as long on both sides and the output the same; only what each token costs differs. The
report bills us, so the difference in price is ours, above or below what the customer was charged.
"""

from tallystick.reconciling.differences import Difference, sides, tokens
from tallystick.reconciling.edges import HOUR
from tallystick.reconciling.findings import Cause, Finding, Kind, Pair
from tallystick.reconciling.worth import cost, unit_prices


def explain_caching(hour: Difference) -> Finding | None:
    """Take away a difference that only moves prompt tokens between kinds."""
    moved = hour.left
    if not any(moved) or moved.prompt or moved.output or moved.web_search:
        return None
    requests = max(hour.served.requests, 1)
    units = unit_prices(hour.place, hour.at, hour.served.counts.prompt // requests)
    hour.explain(moved)
    told = " and ".join(
        f"{abs(count):,} {'more' if count > 0 else 'fewer'} as {kind.replace('_', ' ')}"
        for kind, count in moved.by_kind().items()
        if count
    )
    return Finding(
        pair=Pair.CLAUDE_LEDGER,
        kind=Kind.MISPLACED_USAGE,
        start=hour.at,
        end=hour.at + HOUR,
        place=hour.place.named,
        amounts=sides(moved, hour.reported.counts),
        tokens=tokens(moved),
        usd=None if units is None else cost(moved, units),
        cause=Cause.CACHING,
        words=f"Claude's report tells the same prompts with {told}. What that costs more or less "
        "is ours; customers were charged what Claude's replies said.",
        explained=True,
    )
