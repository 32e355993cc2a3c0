"""Anthropic's usage report against the ledger: the causes of differences, tried in one order.

What lies on the other side of an hour's edge comes first, then free refusals, then prompts told as
other kinds: what is only told otherwise is no usage of anybody's. Then calls without an answer: of
unknown outcome, then settled as not served, then failed. What is left after that was not ours, or
is not known. Each cause takes what it explains away before the next is tried.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from tallystick.reconciling.caching import explain_caching
from tallystick.reconciling.differences import Difference, Served
from tallystick.reconciling.edges import HOUR, Edges, explain_edges, not_yet_told
from tallystick.reconciling.findings import Finding
from tallystick.reconciling.lost_calls import Call, Known, Match, match_calls, tell
from tallystick.reconciling.minutes import narrow, whole
from tallystick.reconciling.refusals import explain_refusals
from tallystick.reconciling.reported import BATCH, At, Place, Reported

Differences = Mapping[Place, Sequence[Difference]]


def explain_told_otherwise(looked: Differences, edges: Edges) -> Iterator[Finding]:
    """Take away what is not usage of anybody's but is told otherwise by the two sides."""
    for hours in looked.values():
        yield from explain_edges(hours, edges)
        for hour in hours:
            for explain in (explain_refusals, explain_caching):
                found = explain(hour)
                if found is not None:
                    yield found


def leave_to_next_run(looked: Differences, edges: Edges) -> set[datetime]:
    """Take away what the hour behind the last one may still explain; returns that last hour.

    The report does not tell that hour yet, and the next run looks at both.
    """
    unjudged: set[datetime] = set()
    for hours in looked.values():
        if not_yet_told(hours[-1], edges):
            hours[-1].explain(hours[-1].left, hours[-1].requests)
            unjudged.add(hours[-1].at)
    return unjudged


def excess(looked: Differences, *, batch: bool) -> list[Difference]:
    """Return the hours in which the report has more, at the batch price or at any other."""
    return [
        hour
        for hours in looked.values()
        for hour in hours
        if hour.is_excess and (hour.place.service_tier == BATCH) is batch
    ]


def to_narrow(hours: Iterable[Difference], calls: Iterable[Call]) -> list[Difference]:
    """Return the hours in which some call without an answer can have been served."""
    known = list(calls)
    return [
        hour
        for hour in hours
        if any(call.may_be_in(hour.place, hour.at, hour.at + HOUR) for call in known)
    ]


def explain_calls(
    hours: Sequence[Difference],
    calls: Sequence[Call],
    reported: Mapping[At, Reported],
    served: Mapping[At, Served],
) -> tuple[list[Finding], set[datetime]]:
    """Take away what calls without an answer have used; returns it, and hours that are too early.

    What a call in flight may have used is left to the next run, with its hour.

    Args:
        hours: in which the report has more.
        calls: those that may be the reason.
        reported: the report of these hours by the minute.
        served: the ledger of these hours by the minute.
    """
    of = {(hour.place, hour.at): hour for hour in hours}
    found: defaultdict[At, list[Match]] = defaultdict(list)
    too_early: set[datetime] = set()
    units = [unit for hour in hours for unit in narrow(hour, reported, served)]
    for known in (Known.NOTHING, Known.IN_FLIGHT, Known.NOT_SERVED, Known.FAILED):
        matches, units = match_calls(units, [call for call in calls if call.known is known])
        for each in matches:
            at = (each.unit.place, _hour(each.unit.start))
            of[at].explain(each.unit.counts, each.unit.requests)
            if known is Known.IN_FLIGHT:
                too_early.add(at[1])
            else:
                found[at].append(each)
    told = [each for at in sorted(found) for each in _findings(of[at], found[at])]
    return told, too_early


def _findings(hour: Difference, matches: Sequence[Match]) -> Iterator[Finding]:
    """Tell of an hour as a whole, where one cause explains all of it; by the minute if not.

    The hour's own row is then for what is left, and stays when the calls are settled.
    """
    if not any(hour.left) and len({each.known for each in matches}) == 1:
        yield tell(matches, whole(hour))
    else:
        for each in matches:
            yield tell([each], each.unit)


def left(looked: Differences) -> list[Difference]:
    """Return the hours that something is left of."""
    return [hour for hours in looked.values() for hour in hours if any(hour.left)]


def _hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)
