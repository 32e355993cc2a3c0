"""Which calls without an answer were served: usage that only the report knows, and whose it can be.

A call of unknown outcome leaves a row with its model, when it began, and how long its prompt was
likely to be; a stream that broke has told part of its usage besides, which is the least it was.
Usage that no record explains is such a call's if all of that fits: the prompt within a factor of
two, and no more calls than requests. What fits nothing was not ours.

Where several calls fit the same usage they share it by their estimates. The sum is exact, and it is
our own cost, charged to nobody; only whose of our customers' calls it was is then an estimate.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple

from tallystick.money import plain, total
from tallystick.pricing import TOKEN_KINDS, TokenCounts
from tallystick.reconciling.differences import NOTHING, covers, minus, sides, tokens
from tallystick.reconciling.edges import NEAR
from tallystick.reconciling.findings import (
    MOST_REQUESTS,
    Cause,
    Finding,
    Kind,
    Pair,
    Proposal,
    RepairKind,
)
from tallystick.reconciling.minutes import Unit
from tallystick.reconciling.reported import BATCH, Place
from tallystick.reconciling.worth import worth

WITHIN = 2
"""The factor by which a prompt's likely length may be wrong."""
SLACK = 64
"""Tokens that Claude may add to each prompt, which count where it is short."""


class Known(Enum):
    """What is known of how a call ended."""

    NOTHING = "nothing"
    IN_FLIGHT = "in flight"
    """It has not ended, or nobody has noted yet how: it is too early to tell."""
    FAILED = "failed"
    """Claude answered with an error."""
    NOT_SERVED = "not served"
    """Nothing was known, and by an earlier look at the report it was not served."""


@dataclass(frozen=True, slots=True)
class Call:
    """A single call without a record. `model` is the price book's id.

    It may have been served from `started_at` until `until`. `at_least` is what its stream had told
    before it broke, and `told` the place that it told then, '' for what it left out.
    """

    attempt_id: int
    customer_id: str
    request_id: str
    known: Known
    model: str
    started_at: datetime
    until: datetime
    estimated_prompt: int
    at_least: TokenCounts = NOTHING
    told: Place | None = None

    @property
    def prompt(self) -> int:
        """How long its prompt was, likely."""
        return self.at_least.prompt or self.estimated_prompt

    def may_be_in(self, place: Place, start: datetime, end: datetime) -> bool:
        """Tell whether it can have been served there, in [start, end)."""
        if self.told is not None and self.told != place:
            return False
        return (
            self.model == place.model
            and place.service_tier != BATCH
            and self.started_at - NEAR < end
            and start < self.until + NEAR
        )

    @property
    def named(self) -> dict[str, Any]:
        """Its ids."""
        return {
            "customer_id": self.customer_id,
            "request_id": self.request_id,
            "attempt_id": self.attempt_id,
        }


class Match(NamedTuple):
    """Usage and the calls that it was. `shared`: only estimates tell them from each other."""

    unit: Unit
    calls: Sequence[Call]
    shared: bool

    @property
    def known(self) -> Known:
        """What is known of its calls; all of them are of one kind."""
        return self.calls[0].known


def match_calls(units: Iterable[Unit], calls: Iterable[Call]) -> tuple[list[Match], list[Unit]]:
    """Find whose usage it was; returns what was found, and the rest.

    In the order of time, and each call once, so the next look finds the same. All calls are to be
    of one kind (`known`).
    """
    free = {call.attempt_id: call for call in calls}
    found: list[Match] = []
    rest: list[Unit] = []
    for unit in sorted(units, key=lambda unit: (unit.start, unit.place)):
        fitting = [
            call
            for call in free.values()
            if call.may_be_in(unit.place, unit.start, unit.end)
            and covers(unit.counts, call.at_least)
        ]
        chosen = _choose(unit, fitting)
        if not chosen:
            rest.append(unit)
            continue
        for call in chosen:
            del free[call.attempt_id]
        found.append(Match(unit, chosen, shared=len(fitting) > 1))
    return found, rest


def _choose(unit: Unit, fitting: Sequence[Call]) -> list[Call]:
    """Return as many of the calls as there are requests, or as their prompts say, if they fit."""
    if not fitting or unit.requests == 0:
        return []
    prompt = unit.counts.prompt
    mean = sum(call.prompt for call in fitting) / len(fitting)
    likely = max(1, min(round(prompt / max(mean, 1)), len(fitting)))
    most = likely if unit.requests is None else min(unit.requests, len(fitting))
    for number in (most, min(likely, most)):
        nearest = sorted(
            fitting, key=lambda call: (abs(call.prompt * number - prompt), call.attempt_id)
        )[:number]
        if fits(prompt, sum(call.prompt for call in nearest), number) and covers(
            unit.counts, _sum(call.at_least for call in nearest)
        ):
            return sorted(nearest, key=lambda call: call.attempt_id)
    return []


def fits(prompt: int, estimated: int, requests: int) -> bool:
    """Tell whether prompts of so many tokens can be those of so many estimated ones."""
    slack = SLACK * requests
    return prompt <= WITHIN * estimated + slack and estimated <= WITHIN * prompt + slack


def shares(counts: TokenCounts, calls: Sequence[Call]) -> list[TokenCounts]:
    """Cut usage up into what each call had: at least what it told, the rest by its prompt."""
    rest = minus(counts, _sum(call.at_least for call in calls))
    weights = [max(call.prompt, 1) for call in calls]
    parts = zip(*(apportion(count, weights) for count in rest), strict=True)
    return [call.at_least.plus(TokenCounts(*part)) for call, part in zip(calls, parts, strict=True)]


def apportion(count: int, weights: Sequence[int]) -> list[int]:
    """Cut a count up by weights, in whole numbers that add up to it."""
    whole, weighed, given = sum(weights), 0, 0
    parts: list[int] = []
    for weight in weights:
        weighed += weight
        parts.append(count * weighed // whole - given)
        given += parts[-1]
    return parts


def _sum(counts: Iterable[TokenCounts]) -> TokenCounts:
    summed = NOTHING
    for each in counts:
        summed = summed.plus(each)
    return summed


# --- Findings -------------------------------------------------------------------------------------
def tell(matches: Sequence[Match], span: Unit) -> Finding:
    """Return the finding of usage and its calls, over all of `span`; all are of one kind."""
    match matches[0].known:
        case Known.NOTHING:
            return _lost(matches, span)
        case Known.IN_FLIGHT:
            raise ValueError("of a call in flight nothing is to be told yet")
        case Known.NOT_SERVED:
            return _told(
                matches,
                span,
                Cause.LOST_CALL,
                "that fit {calls} which an earlier look at the report showed as not served. What "
                "was settled is not changed; it is our cost, charged to nobody.",
            )
        case Known.FAILED:
            return _told(
                matches,
                span,
                Cause.FAILED_REQUESTS,
                "for {calls} that it answered with an error. It is our cost, charged to nobody.",
                explained=True,
            )


def _lost(matches: Sequence[Match], span: Unit) -> Finding:
    subjects: dict[str, dict[str, Any]] = {}
    for each in matches:
        for call, part in zip(each.calls, shares(each.unit.counts, each.calls), strict=True):
            cost_usd = worth(span.place, each.unit.start, part)
            if cost_usd is None:
                return _told(
                    matches,
                    span,
                    Cause.LOST_CALL,
                    "that no record has: {calls} whose outcome nobody knew. There is no "
                    "established price for it, so it cannot be booked yet.",
                )
            subjects[str(call.attempt_id)] = settlement(part, cost_usd, each.shared)
    return _told(
        matches,
        span,
        Cause.LOST_CALL,
        "that no record has: {calls} whose outcome nobody knew. It is our cost, charged to nobody.",
        proposal=Proposal(
            repair=RepairKind.SETTLE_ATTEMPTS,
            words="book it as our cost; no customer is charged",
            subjects=subjects,
            automatic=True,
        ),
    )


def settlement(counts: TokenCounts, cost_usd: Decimal, shared: bool) -> dict[str, Any]:
    """Return what `ledger.attempt_settlements` has to know of one call, in JSON."""
    return {
        **{f"{kind}_tokens": count for kind, count in zip(TOKEN_KINDS, counts, strict=False)},
        "web_searches": counts.web_search,
        "cost_usd": plain(cost_usd),
        "shared": shared,
        "words": "served, by Anthropic's usage report"
        + ("; which of several calls it was is an estimate" if shared else ""),
    }


def _told(
    matches: Sequence[Match],
    span: Unit,
    cause: Cause,
    words: str,
    *,
    proposal: Proposal | None = None,
    explained: bool = False,
) -> Finding:
    used = _sum(each.unit.counts for each in matches)
    calls = [call for each in matches for call in each.calls]
    costs = [
        worth(span.place, each.unit.start, part)
        for each in matches
        for part in shares(each.unit.counts, each.calls)
    ]
    known = [cost for cost in costs if cost is not None]
    number = "a call" if len(calls) == 1 else f"{len(calls):,} calls"
    return Finding(
        pair=Pair.CLAUDE_LEDGER,
        kind=Kind.UNRECORDED_USAGE,
        start=span.start,
        end=span.end,
        place=span.place.named,
        amounts=sides(used, span.reported),
        tokens=tokens(used),
        usd=None if len(known) < len(costs) else total(known),
        cause=cause,
        words=f"Claude reports {tokens(used):,} tokens {words.format(calls=number)}",
        requests=[call.named for call in calls[:MOST_REQUESTS]],
        proposal=proposal,
        explained=explained,
    )
