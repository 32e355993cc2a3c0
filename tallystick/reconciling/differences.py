"""Where Anthropic's usage report and the ledger differ: by place and hour, kind by kind.

A difference is what the report has more than the ledger, below zero where it has less. Causes are
tried one after the other, and each takes away what it explains (`left`); a difference is never
spread over causes by proportion, so what an explanation takes is an exact number or nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from tallystick.pricing import TOKEN_KINDS, TokenCounts, TokenKind
from tallystick.reconciling.reported import At, Place, Reported

NOTHING = TokenCounts()
NOT_REPORTED = Reported(NOTHING, 0)


class Served(NamedTuple):
    """What the ledger knows to have been served, in one place and bucket.

    `counts` are of records as Claude told them, and of calls without a record whose usage is known
    by now. `free` is the part of them that is not billed: `refused` requests, before any output.
    `declined` was listed by Claude beside them, free of charge too, and is not in `counts`.
    """

    counts: TokenCounts = NOTHING
    requests: int = 0
    free: TokenCounts = NOTHING
    refused: int = 0
    declined: TokenCounts = NOTHING

    def plus(self, other: "Served") -> "Served":
        """Return the sum."""
        return Served(
            self.counts.plus(other.counts),
            self.requests + other.requests,
            self.free.plus(other.free),
            self.refused + other.refused,
            self.declined.plus(other.declined),
        )


NOT_SERVED = Served()


@dataclass(slots=True)
class Difference:
    """One place in one bucket: what both sides say, and what of it no cause has explained yet.

    `requests` are those that the report has more, less those of what was explained; None where the
    report does not tell.
    """

    place: Place
    at: datetime
    reported: Reported
    served: Served
    left: TokenCounts
    requests: int | None

    @classmethod
    def between(
        cls, place: Place, at: datetime, reported: Reported, served: Served
    ) -> "Difference":
        """Lay both sides beside each other."""
        told = reported.requests
        return cls(
            place=place,
            at=at,
            reported=reported,
            served=served,
            left=minus(reported.counts, served.counts),
            requests=None if told is None else told - served.requests,
        )

    @property
    def is_excess(self) -> bool:
        """Whether the report has more of something and less of nothing."""
        return any(self.left) and covers(self.left, NOTHING)

    def explain(self, counts: TokenCounts, requests: int | None = 0) -> None:
        """Take away what a cause explains."""
        self.left = minus(self.left, counts)
        if self.requests is not None:
            self.requests -= requests or 0


def differences(
    hours: Sequence[datetime], reported: Mapping[At, Reported], served: Mapping[At, Served]
) -> dict[Place, list[Difference]]:
    """Return the places that differ in some hour, each with all of the hours, in their order."""
    unlike: set[Place] = set()
    for at in {*reported, *served}:
        if reported.get(at, NOT_REPORTED).counts != served.get(at, NOT_SERVED).counts:
            unlike.add(at[0])
    return {
        place: [_laid_out(place, hour, reported, served) for hour in hours]
        for place in sorted(unlike)
    }


def everywhere(reported: Mapping[At, Reported], served: Mapping[At, Served]) -> list[Difference]:
    """Return every place and bucket that either side knows, also those that do not differ."""
    return [_laid_out(place, at, reported, served) for place, at in sorted({*reported, *served})]


def _laid_out(
    place: Place, at: datetime, reported: Mapping[At, Reported], served: Mapping[At, Served]
) -> Difference:
    return Difference.between(
        place,
        at,
        reported.get((place, at), NOT_REPORTED),
        served.get((place, at), NOT_SERVED),
    )


# --- Counts, kind by kind -------------------------------------------------------------------------
def minus(one: TokenCounts, other: TokenCounts) -> TokenCounts:
    """Return the difference; below zero where the other is more."""
    return TokenCounts(*(a - b for a, b in zip(one, other, strict=True)))


def negative(counts: TokenCounts) -> TokenCounts:
    """Return the counts with their signs turned."""
    return minus(NOTHING, counts)


def covers(one: TokenCounts, other: TokenCounts) -> bool:
    """Tell whether there is as much or more of every kind."""
    return all(a >= b for a, b in zip(one, other, strict=True))


def tokens(difference: TokenCounts) -> int:
    """Return by how many tokens two sides differ, each kind taken positive."""
    return sum(abs(count) for count in difference[: len(TOKEN_KINDS)])


def sides(difference: TokenCounts, claude: TokenCounts) -> dict[str, dict[str, int]]:
    """Return what each side has of the kinds that differ, by what the report has."""
    return {
        str(kind): {"claude": told, "ledger": told - more}
        for kind, more, told in zip(TokenKind, difference, claude, strict=True)
        if more
    }
