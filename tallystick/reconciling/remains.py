"""What no cause has explained: usage from outside, usage that is not reported, and the unknown.

It is told by the hour, which stays the same whatever else of the hour has been explained or booked
meanwhile. A person decides what it is.
"""

from collections.abc import Sequence

from tallystick.reconciling.differences import NOTHING, Difference, covers, sides, tokens
from tallystick.reconciling.edges import HOUR
from tallystick.reconciling.findings import Cause, Finding, Kind, Pair
from tallystick.reconciling.worth import worth

_KEYS_NAMED = 5


def remaining(hour: Difference, keys: Sequence[str]) -> Finding:
    """Return what is left of an hour.

    Args:
        hour: something is left of it.
        keys: ids of the API keys that the report names there.
    """
    left = hour.left
    more = sum(left) > 0
    requests = max(hour.requests or 1, 1)
    cause, words = _why(hour, keys)
    return Finding(
        pair=Pair.CLAUDE_LEDGER,
        kind=Kind.UNRECORDED_USAGE if more else Kind.UNREPORTED_USAGE,
        start=hour.at,
        end=hour.at + HOUR,
        place=hour.place.named,
        amounts=sides(left, hour.reported.counts),
        tokens=tokens(left),
        usd=worth(hour.place, hour.at, left, requests=requests),
        cause=cause,
        words=words,
    )


def _why(hour: Difference, keys: Sequence[str]) -> tuple[Cause, str]:
    count = f"{tokens(hour.left):,} tokens"
    if hour.is_excess:
        named = ", ".join(key or "no key" for key in keys[:_KEYS_NAMED])
        return Cause.OUTSIDE_USAGE, (
            f"Claude reports {count} that fit no call of ours: calls outside Tallystick with the "
            f"same keys ({named}) are the likely cause. Use a key of its own for Tallystick, and "
            "TALLYSTICK_REPORT_KEYS to name it."
        )
    if covers(NOTHING, hour.left):
        return Cause.UNKNOWN, f"The ledger has {count} that Claude's report does not have."
    return Cause.UNKNOWN, (
        f"Claude's report and the ledger differ by {count}, some kinds more and some less; no "
        "known cause explains that."
    )
