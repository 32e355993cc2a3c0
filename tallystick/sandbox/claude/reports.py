"""What the reports know: running sums per minute and place, and the instant they have got to.

Sums are kept as usage is journalled, so a report costs by the minutes and places it covers and not
by the requests. Lies are told while adding; after a new one the sums are made anew from everything
that was ever used.

The reports know whole minutes: the watermark is now, less the lag, rounded down to the minute, and
usage dated from then on is not in them.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from tallystick.pricing import TokenCounts
from tallystick.sandbox.claude.list_prices import tier_of
from tallystick.sandbox.claude.report_lies import Lie, retold
from tallystick.sandbox.claude.used import Place, Used

MINUTE = 60

_NOTHING = TokenCounts()


class Terms(NamedTuple):
    """What decides a price beside the place: the tier, and what a lie made of it."""

    prompt_over: int
    factor: Decimal
    paid: Decimal


class Cell(NamedTuple):
    """Usage that has one price within a day; without terms it costs nothing."""

    place: Place
    terms: Terms | None


@dataclass(slots=True)
class Sum:
    """Requests and their tokens."""

    requests: int = 0
    tokens: TokenCounts = _NOTHING

    def add(self, requests: int, tokens: TokenCounts) -> None:
        """Count further usage."""
        self.requests += requests
        self.tokens = self.tokens.plus(tokens)


class Reports:
    """The sums of one stand-in. `lag` is in seconds.

    Args:
        journalled: everything that was served so far, for when the sums are made anew.
    """

    def __init__(self, journalled: Callable[[], Iterable[Used]]):
        self.lag = 0.0
        self.lies: list[Lie] = []
        self._journalled = journalled
        self._outside: list[Used] = []
        self._minutes = _no_minutes()

    def add(self, used: Iterable[Used]) -> None:
        """Count usage that was just journalled."""
        for each in used:
            self._count(each)

    def add_outside(self, used: Iterable[Used]) -> None:
        """Count usage that no journal has."""
        used = list(used)
        self._outside += used
        self.add(used)

    def lie(self, *lies: Lie) -> None:
        """Tell these lies as well, beginning with what was already reported."""
        self.lies += lies
        self._count_anew()

    def stop_lying(self) -> None:
        """Tell everything as it was."""
        self.lies.clear()
        self._count_anew()

    def watermark(self, now: float) -> int:
        """Return the minute, since the epoch, before which everything is told."""
        return int((now - self.lag) // MINUTE)

    def cells(self, start: int, end: int) -> Iterator[tuple[int, Cell, Sum]]:
        """Return the sums of the minutes [start, end), each with its minute."""
        for minute in range(start, end):
            if minute in self._minutes:
                for cell, total in self._minutes[minute].items():
                    yield minute, cell, total

    def _count(self, used: Used) -> None:
        told = retold(used, self.lies)
        if told is None:
            return
        tier = None if told.free else tier_of(told.place, told.at, told.tokens, told.requests)
        terms = None if tier is None else Terms(tier, told.factor, told.paid)
        cells = self._minutes[int(told.at // MINUTE)]
        cells[Cell(told.place, terms)].add(told.requests, told.tokens)

    def _count_anew(self) -> None:
        self._minutes = _no_minutes()
        self.add(self._journalled())
        self.add(self._outside)


def _no_minutes() -> defaultdict[int, defaultdict[Cell, Sum]]:
    return defaultdict(lambda: defaultdict(Sum))
