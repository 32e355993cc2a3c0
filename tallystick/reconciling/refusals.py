"""Refusals before any output: free, and counted by one side and not by the other.

Claude tells the usage of such a reply and does not bill it. The ledger counts it as it was told;
whether a usage report does is not documented. So it explains a difference only as a whole: all of
an hour's refusals are missing, or all attempts that a fallback declined are there besides.
"""

from tallystick.pricing import TokenCounts
from tallystick.reconciling.differences import (
    NOTHING,
    Difference,
    covers,
    minus,
    negative,
    sides,
    tokens,
)
from tallystick.reconciling.edges import HOUR
from tallystick.reconciling.findings import Cause, Finding, Kind, Pair


def explain_refusals(hour: Difference) -> Finding | None:
    """Take away what free refusals explain of an hour's difference, if they do."""
    part = _part(hour)
    if part is None:
        return None
    hour.explain(part, -hour.served.refused if covers(NOTHING, part) else 0)
    more = sum(part) > 0
    where = "in Claude's report and not in the ledger" if more else "missing in Claude's report"
    return Finding(
        pair=Pair.CLAUDE_LEDGER,
        kind=Kind.UNRECORDED_USAGE if more else Kind.UNREPORTED_USAGE,
        start=hour.at,
        end=hour.at + HOUR,
        place=hour.place.named,
        amounts=sides(part, hour.reported.counts),
        tokens=tokens(part),
        cause=Cause.REFUSALS,
        words=f"{tokens(part):,} tokens of refusals before any output, which are free, are "
        f"{where}. Nothing is to be done.",
        explained=True,
    )


def _part(hour: Difference) -> TokenCounts | None:
    left_out = negative(hour.served.free)
    for part in (left_out, hour.served.declined, hour.served.declined.plus(left_out)):
        if any(part) and hour.left == part:
            return part
    # Refusals are left out and something else is there: what they lack, they lack altogether.
    rest = minus(hour.left, left_out)
    if any(left_out) and not covers(hour.left, NOTHING) and any(rest) and covers(rest, NOTHING):
        return left_out
    return None
