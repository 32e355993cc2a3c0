"""Bucket edges: usage that the report has in another hour than the ledger, because of two clocks.

The ledger dates an answer by when it arrived, the report by a clock and an instant of its own
(facts on Claude, 'Open'). So what was served near the edge of an hour may be counted on its other
side. That explains differences of neighbouring hours only where they cancel each other exactly and
where what was served within `NEAR` of each edge between them is enough to carry the difference
over it. It never explains a sum that stays: a lost call must not hide in the traffic of an edge.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from tallystick.pricing import TokenCounts
from tallystick.reconciling.differences import (
    NOTHING,
    Difference,
    covers,
    negative,
    sides,
    tokens,
)
from tallystick.reconciling.findings import Cause, Finding, Kind, Pair
from tallystick.reconciling.reported import At

NEAR = timedelta(minutes=5)
"""How far apart two clocks, and begin and end of a call's last step, may be."""
HOUR = timedelta(hours=1)


class Edge(NamedTuple):
    """What the ledger has served within `NEAR` before and after an instant, in one place."""

    before: TokenCounts = NOTHING
    after: TokenCounts = NOTHING

    def could_carry(self, moved: TokenCounts) -> bool:
        """Tell whether the report can have this before the edge, below zero: behind it."""
        return covers(self.after, moved) and covers(self.before, negative(moved))


Edges = Mapping[At, Edge]
"""By place and by the instant between two hours."""
_NO_TRAFFIC = Edge()


def edges_of(hours: Sequence[Difference]) -> Iterator[datetime]:
    """Yield the edges around hours that differ, whose traffic has to be known."""
    edges = {edge for each in hours if any(each.left) for edge in (each.at, each.at + HOUR)}
    yield from sorted(edges)


def explain_edges(hours: Sequence[Difference], edges: Edges) -> Iterator[Finding]:
    """Take away what lies on the other side of an edge, in consecutive hours of one place."""
    for run in _cancelling(hours, edges):
        claude, moved = run[0].reported.counts, run[0].left
        for each in run:
            each.explain(each.left, each.requests)
        yield _finding(run, moved, claude)
    for less, more in _one_sided(hours, edges):
        claude, missing, requests = less.reported.counts, less.left, less.requests
        less.explain(missing, requests)
        more.explain(negative(missing), None if requests is None else -requests)
        first, last = sorted((less, more), key=lambda each: each.at)
        if less is first:
            yield _finding([first, last], missing, claude)
        else:
            yield _finding([first, last], negative(missing), first.reported.counts)


def not_yet_told(last: Difference, edges: Edges) -> bool:
    """Tell whether the hour behind the last one could still explain it; that is not known yet."""
    edge = edges.get((last.place, last.at + HOUR), _NO_TRAFFIC)
    return any(last.left) and edge.could_carry(last.left)


def _cancelling(hours: Sequence[Difference], edges: Edges) -> Iterator[Sequence[Difference]]:
    """Yield runs of hours that add up to nothing, each step of the way within an edge's traffic."""
    start = 0
    while start < len(hours):
        end = _end_of_run(hours, start, edges)
        if end is not None:
            yield hours[start:end]
        start = end or start + 1


def _end_of_run(hours: Sequence[Difference], start: int, edges: Edges) -> int | None:
    if not any(hours[start].left):
        return None
    moved = NOTHING
    for position in range(start, len(hours)):
        each = hours[position]
        if position > start:
            edge = edges.get((each.place, each.at), _NO_TRAFFIC)
            if not edge.could_carry(moved):
                return None
        moved = moved.plus(each.left)
        if not any(moved):
            return position + 1
    return None


def _one_sided(
    hours: Sequence[Difference], edges: Edges
) -> Iterator[tuple[Difference, Difference]]:
    """Yield hours that only lack something, each with a neighbour that has that much more."""
    for position, less in enumerate(hours):
        if not any(less.left) or not covers(NOTHING, less.left):
            continue
        missing = negative(less.left)
        for other in (position - 1, position + 1):
            if not 0 <= other < len(hours) or not covers(hours[other].left, missing):
                continue
            more = hours[other]
            edge = edges.get((less.place, max(less.at, more.at)), _NO_TRAFFIC)
            if edge.could_carry(missing if other < position else less.left):
                yield less, more
                break


def _finding(run: Sequence[Difference], moved: TokenCounts, claude: TokenCounts) -> Finding:
    first, last = run[0], run[-1]
    return Finding(
        pair=Pair.CLAUDE_LEDGER,
        kind=Kind.MISPLACED_USAGE,
        start=first.at,
        end=last.at + HOUR,
        place=first.place.named,
        amounts=sides(moved, claude),
        tokens=tokens(moved),
        cause=Cause.BUCKET_EDGE,
        words=f"Claude's report has {tokens(moved):,} tokens on the other side of an hour's edge; "
        "what was served within five minutes of it can be that, and both hours together agree. "
        "Nothing is to be done.",
        explained=True,
    )
