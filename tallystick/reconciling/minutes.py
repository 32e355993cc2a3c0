"""From the hour to the minute: when what the report has more than the ledger was served.

Clocks differ by moments, so in busy minutes the report has a little of the next one's or of the
last one's. Within `NEAR` of each other, what one minute lacks is made up by what another has too
much, kind by kind; what then stays is where the difference is. Minutes that do not add up to what
is left of their hour tell nothing, and the hour stays whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tallystick.pricing import TokenCounts
from tallystick.reconciling.differences import (
    NOT_REPORTED,
    NOT_SERVED,
    NOTHING,
    Difference,
    Served,
    covers,
)
from tallystick.reconciling.edges import HOUR, NEAR
from tallystick.reconciling.reported import At, Place, Reported

MINUTE = timedelta(minutes=1)
_MINUTES = HOUR // MINUTE
_APART = NEAR // MINUTE


@dataclass(frozen=True, slots=True)
class Unit:
    """Usage that the report has and the ledger has not, served in [start, end).

    `requests` is how many requests it may be, None where the report does not tell; `reported` is
    all that the report has there.
    """

    place: Place
    start: datetime
    end: datetime
    counts: TokenCounts
    requests: int | None
    reported: TokenCounts

    def joined(self, other: "Unit") -> "Unit":
        """Return both as one."""
        told = self.requests is not None and other.requests is not None
        return Unit(
            self.place,
            self.start,
            other.end,
            self.counts.plus(other.counts),
            (self.requests or 0) + (other.requests or 0) if told else None,
            self.reported.plus(other.reported),
        )


def whole(hour: Difference) -> Unit:
    """Return what is left of an hour as one unit."""
    return Unit(hour.place, hour.at, hour.at + HOUR, hour.left, hour.requests, hour.reported.counts)


def narrow(
    hour: Difference, reported: Mapping[At, Reported], served: Mapping[At, Served]
) -> list[Unit]:
    """Return what is left of an hour by the minute; as a whole where the minutes do not tell.

    Args:
        hour: has more on the report's side.
        reported: the report by the minute.
        served: the ledger by the minute.
    """
    minutes = [
        Difference.between(
            hour.place,
            at,
            reported.get((hour.place, at), NOT_REPORTED),
            served.get((hour.place, at), NOT_SERVED),
        )
        for at in (hour.at + number * MINUTE for number in range(_MINUTES))
    ]
    kinds = [_made_up(counts) for counts in zip(*(each.left for each in minutes), strict=True)]
    told = [each.requests for each in minutes]
    requests: Sequence[int | None] = told
    if hour.requests is not None and None not in told:
        requests = _made_up([count or 0 for count in told])
    units = _joined(
        [
            Unit(each.place, each.at, each.at + MINUTE, TokenCounts(*counts), count,
                 each.reported.counts)
            for each, count, *counts in zip(minutes, requests, *kinds, strict=True)
            if any(counts)
        ]
    )  # fmt: skip
    summed = NOTHING
    for unit in units:
        summed = summed.plus(unit.counts)
    adds_up = summed == hour.left and all(covers(unit.counts, NOTHING) for unit in units)
    return units if adds_up and all(unit.requests != 0 for unit in units) else [whole(hour)]


def _made_up(counts: Sequence[int]) -> list[int]:
    """Let each minute that lacks something have it from those nearest to it."""
    made = list(counts)
    for at in range(len(made)):
        for apart in range(1, _APART + 1):
            for other in (at - apart, at + apart):
                if made[at] < 0 and 0 <= other < len(made) and made[other] > 0:
                    moved = min(-made[at], made[other])
                    made[at] += moved
                    made[other] -= moved
    return made


def _joined(units: Sequence[Unit]) -> list[Unit]:
    """Put tokens without a request to the request beside them."""
    joined: list[Unit] = []
    for unit in units:
        last = joined[-1] if joined else None
        if last and unit.start - last.end < NEAR and 0 in (last.requests, unit.requests):
            joined[-1] = last.joined(unit)
        else:
            joined.append(unit)
    return joined
