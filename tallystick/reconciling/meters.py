"""Meter events beside what Stripe counts: minutes that differ, and why.

What is missing in a minute or too much is explained by the fewest of its events that add up to it,
if only one such set does; an equal amount too much at another customer says that Stripe counts it
there. Minutes are therefore looked at together. A finding is known by its place and not its cause,
so a later look that knows more meets the same row.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tallystick.metering import UNITS
from tallystick.reconciling.findings import MOST_REQUESTS, Cause, Finding, Kind, Pair
from tallystick.reconciling.meter_minutes import (
    HOUR,
    MINUTE,
    Minute,
    SentEvent,
    place_of,
    quantity,
    request_facts,
    tokens_of,
    usd_of,
)
from tallystick.reconciling.meter_repairs import remedy
from tallystick.reconciling.narrowing import explaining


@dataclass(frozen=True, slots=True)
class _Explained:
    """A difference with its cause, and the events it consists of, if they can be told.

    `other` is the minute of the customer that it is counted for, or whose it is.
    """

    cause: Cause
    events: Sequence[SentEvent] = field(default=())
    other: Minute | None = None


def judge(minutes: Sequence[Minute], now: datetime) -> list[Finding]:
    """Return a finding for each minute that differs.

    Args:
        minutes: all those of a run that may differ, each once.
        now: by which Stripe's windows are judged.
    """
    differing = [minute for minute in minutes if not minute.agrees]
    others = _counted_elsewhere(differing)
    return [_finding(each, _explain(each, others.get(id(each))), now) for each in differing]


# --- Why ------------------------------------------------------------------------------------------
def _counted_elsewhere(minutes: Sequence[Minute]) -> dict[int, Minute]:
    """Return, for each minute that misses just what one other has too much, that other one; and
    the reverse. By the object's identity."""
    alike: defaultdict[tuple[str, datetime, int], list[Minute]] = defaultdict(list)
    for each in minutes:
        alike[each.meter, each.at, abs(each.difference)].append(each)
    found: dict[int, Minute] = {}
    for group in alike.values():
        short = [each for each in group if each.difference < 0]
        long = [each for each in group if each.difference > 0]
        if len(short) == len(long) == 1:
            found |= {id(short[0]): long[0], id(long[0]): short[0]}
    return found


def _explain(minute: Minute, other: Minute | None) -> _Explained:
    short = minute.difference < 0
    sender = minute if other is None or short else other
    sets = _sets(sender)
    events = sets[0] if len(sets) == 1 else ()
    if other is not None:
        return _Explained(Cause.WRONG_CUSTOMER, events, other)
    if events:
        return _Explained(Cause.LOST_EVENT if short else Cause.COUNTED_TWICE, events)
    return _Explained(Cause.UNKNOWN if short or sets else Cause.OUTSIDE_EVENT)


def _sets(minute: Minute) -> list[list[SentEvent]]:
    events = minute.acknowledged
    found = explaining([event.value for event in events], abs(minute.difference))
    return [[events[index] for index in each] for each in found]


# --- In words -------------------------------------------------------------------------------------
def _finding(minute: Minute, why: _Explained, now: datetime) -> Finding:
    mended = remedy(minute, why.cause, why.events, now)
    sender = why.other if why.other and minute.difference > 0 else minute
    named = why.events or minute.events
    return Finding(
        pair=Pair.OUTBOX_STRIPE,
        kind=_kind(minute.difference),
        start=minute.at,
        end=minute.at + MINUTE,
        place=place_of(minute.customer_id, minute.meter),
        amounts=_amounts(minute.meter, minute.expected, minute.counted),
        tokens=tokens_of(minute.meter, minute.difference),
        usd=usd_of(minute.meter, minute.difference),
        cause=why.cause,
        words=f"{_said(minute, why)} {mended.words}",
        requests=[
            request_facts(
                sender.customer_id,
                event.request_id,
                event.identifier,
                event.value,
                event.occurred_at,
            )
            for event in named[:MOST_REQUESTS]
        ],
        proposal=mended.proposal,
        explained=mended.proposal is None,
    )


def not_narrowed(
    customer_id: str, meter: str, hour: datetime, *, expected: int, counted: int
) -> Finding:
    """Return the finding of an hour that differs and is not looked into: too many others do."""
    difference = counted - expected
    return Finding(
        pair=Pair.OUTBOX_STRIPE,
        kind=_kind(difference),
        start=hour,
        end=hour + HOUR,
        place=place_of(customer_id, meter),
        amounts=_amounts(meter, expected, counted),
        tokens=tokens_of(meter, difference),
        usd=usd_of(meter, difference),
        cause=Cause.UNKNOWN,
        words=f"Stripe counts {quantity(meter, abs(difference))} "
        f"{'less' if difference < 0 else 'more'} for {customer_id} than it was sent in this hour. "
        "So many hours differ that this one was not looked into; Stripe's sums may be behind.",
    )


def _kind(difference: int) -> Kind:
    return Kind.NOT_COUNTED if difference < 0 else Kind.OVERCOUNTED


def _amounts(meter: str, expected: int, counted: int) -> dict[str, dict[str, int | str]]:
    return {UNITS[meter]: {"outbox": expected, "stripe": counted}}


def _said(minute: Minute, why: _Explained) -> str:
    much, whose = quantity(minute.meter, abs(minute.difference)), minute.customer_id
    one = len(why.events) == 1
    these, them = ("an event", "it") if one else (f"{len(why.events)} events", "them")
    other = why.other.customer_id if why.other else ""
    by_cause = {
        Cause.LOST_EVENT: f"acknowledged {these} of {whose}, {much}, and does not count {them}",
        Cause.COUNTED_TWICE: f"counted {these} of {whose}, {much}, twice",
        Cause.OUTSIDE_EVENT: f"counted {much} for {whose} that were not sent from here",
    }
    short = {
        Cause.WRONG_CUSTOMER: f"counted {much} of {whose} for another customer, {other}",
        Cause.UNKNOWN: f"acknowledged {much} of {whose} that it does not count; which events "
        "those are cannot be told",
    }
    long = {
        Cause.WRONG_CUSTOMER: f"counted {much} for {whose} that were another customer's, {other}'s",
        Cause.UNKNOWN: f"counted {much} more for {whose} than it was sent; which events it counts "
        "twice cannot be told",
    }
    said = by_cause | (short if minute.difference < 0 else long)
    return f"Stripe has {said[why.cause]}."
