"""Whether a worker's memory stays flat, from what it held second by second.

A worker that has just begun fills what it keeps on purpose (statements that PostgreSQL prepared,
runs that Temporal may ask for again, what the allocator holds for the next peak). All of that has
a bound, so the first quarter of a drill says nothing about leaks. Flat means: the median of the
last quarter is at most `ALLOWANCE` above the median of the second. A drill of less than
`JUDGED_FROM` is not judged, since it would judge the filling.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median
from typing import Any

ALLOWANCE = 0.05
"""Of the second quarter. In half an hour at the default rate the spared worker serves about 1,500
requests from the middle of the second quarter to the middle of the last: what leaks more than some
8 kB a request is found."""
JUDGED_FROM = 20 * 60.0
"""Seconds of samples."""
STRETCHES = 12
"""Three to a quarter, for the eye."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of one process, in MB."""

    seconds: float
    """For how long it was watched."""
    quarters: Sequence[float]
    """Medians, so that no single look decides."""
    course: Sequence[float]
    """Medians of `STRETCHES` stretches of equal length."""

    @property
    def growth(self) -> float:
        """How far the last quarter is above the second, as a share of the second."""
        return self.quarters[3] / self.quarters[1] - 1

    @property
    def flat(self) -> bool | None:
        """Tell whether it stayed flat; None of a drill too short to tell."""
        return self.growth <= ALLOWANCE if self.seconds >= JUDGED_FROM else None

    def as_json(self) -> dict[str, Any]:
        """Return it as one object."""
        return {**asdict(self), "growth": round(self.growth, 4), "flat": self.flat}


def memory(samples: Sequence[int], every: float) -> Memory | None:
    """Return what samples in bytes, taken `every` so many seconds, come to; None of too few."""
    if len(samples) < STRETCHES:
        return None
    return Memory(len(samples) * every, _medians(samples, 4), _medians(samples, STRETCHES))


def _medians(samples: Sequence[int], parts: int) -> list[float]:
    cuts = [len(samples) * number // parts for number in range(parts + 1)]
    return [round(median(samples[start:end]) / 1e6, 1) for start, end in pairwise(cuts)]
