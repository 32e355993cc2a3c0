"""Batches that are no records yet: lost ones, of which some or all was served, and unread ones.

A batch that was never found may exist and be served for a day, and its items are many. Usage at the
batch price that no record explains is theirs if it is no more requests than they are and their
prompts fit; a number of items is settled then, in the order of their numbers, and which of them
they were is an estimate. What was settled before tells where the next ones begin, so a proposal
says the same whoever makes it, and does the same however often it is applied.

A batch that runs, or has ended and is not read to its end, will have its records. Until then its
usage is nobody's discrepancy.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tallystick.money import plain
from tallystick.pricing import TokenCounts, TokenKind
from tallystick.reconciling.differences import Difference, sides, tokens
from tallystick.reconciling.edges import HOUR, NEAR
from tallystick.reconciling.findings import Cause, Finding, Kind, Pair, Proposal, RepairKind
from tallystick.reconciling.lost_calls import apportion, fits, settlement
from tallystick.reconciling.reported import BATCH, names_of
from tallystick.reconciling.worth import Units, cost, unit_prices

SERVED_FOR = timedelta(hours=24)
"""A batch expires so long after it was made (facts on Claude, 'Message Batches')."""


@dataclass(slots=True)
class OpenBatch:
    """The items of one model in a shard, served in [`since`, `until`) if they were.

    `settled` of the `items` are known to have been.
    """

    job_id: str
    shard: int
    customer_id: str
    model: str
    since: datetime
    until: datetime
    items: int
    settled: int
    estimated_prompt: int
    """Of all items together."""

    @property
    def waiting(self) -> int:
        """Items of which nothing is known."""
        return self.items - self.settled

    def may_be_in(self, hour: Difference) -> bool:
        """Tell whether some of it can have been served in that hour and place."""
        return (
            self.waiting > 0
            and self.model == hour.place.model
            and hour.place.service_tier == BATCH
            and self.since - NEAR < hour.at + HOUR
            and hour.at < self.until + NEAR
        )


def leave_unread(hours: Sequence[Difference], unread: Sequence[OpenBatch]) -> set[datetime]:
    """Take away what batches may have served that are not read yet; returns those hours."""
    too_early: set[datetime] = set()
    for hour, fitting in _by_hour(hours, unread):
        if count := _count(hour, fitting):
            _take(count, fitting)
            hour.explain(hour.left, hour.requests)
            too_early.add(hour.at)
    return too_early


def explain_batches(hours: Sequence[Difference], lost: Sequence[OpenBatch]) -> Iterator[Finding]:
    """Take away what lost batches have served, hour after hour."""
    for hour, fitting in _by_hour(hours, lost):
        count = _count(hour, fitting)
        units = unit_prices(hour.place, hour.at, hour.left.prompt // max(count, 1))
        if count and units is not None:
            yield _finding(hour, _take(count, fitting), units)
            hour.explain(hour.left, hour.requests)


def _by_hour(
    hours: Sequence[Difference], batches: Sequence[OpenBatch]
) -> Iterator[tuple[Difference, Sequence[OpenBatch]]]:
    """Yield hours in which the report has more, with the batches that may be why, oldest first."""
    for hour in sorted(hours, key=lambda hour: (hour.at, hour.place)):
        if hour.is_excess:
            yield (
                hour,
                sorted(
                    (batch for batch in batches if batch.may_be_in(hour)),
                    key=lambda batch: (batch.since, batch.job_id, batch.shard),
                ),
            )


def _count(hour: Difference, fitting: Sequence[OpenBatch]) -> int:
    """Return how many items the usage of an hour is of; 0 where it fits none."""
    items = sum(batch.items for batch in fitting)
    if not items or not hour.left.prompt:
        return 0
    prompts = sum(batch.estimated_prompt for batch in fitting)
    likely = max(1, round(hour.left.prompt * items / max(prompts, 1)))
    waiting = sum(batch.waiting for batch in fitting)
    count = min(likely, waiting) if hour.requests is None else hour.requests
    fit = fits(hour.left.prompt, prompts * count // items, count)
    return count if 0 < count <= waiting and fit else 0


def _take(count: int, fitting: Sequence[OpenBatch]) -> list[tuple[OpenBatch, int, int]]:
    """Take so many items, the oldest batches first: of which, from which on, how many."""
    taken: list[tuple[OpenBatch, int, int]] = []
    for batch in fitting:
        items = min(count, batch.waiting)
        if items:
            taken.append((batch, batch.settled, items))
            batch.settled += items
            count -= items
    return taken


def _finding(
    hour: Difference, taken: Sequence[tuple[OpenBatch, int, int]], units: Units
) -> Finding:
    weights = [batch.estimated_prompt * items // batch.items + 1 for batch, _, items in taken]
    cut = zip(*(apportion(each, weights) for each in hour.left), strict=True)
    prices = {str(kind): plain(unit) for kind, unit in zip(TokenKind, units, strict=True)}
    subjects = {
        f"{batch.job_id}/{batch.shard}#{first}": {
            "job_id": batch.job_id,
            "shard": batch.shard,
            "models": names_of(batch.model),
            "first": first,
            "items": items,
            "unit_usd": prices,
            **settlement(TokenCounts(*part), cost(TokenCounts(*part), units), shared=True),
        }
        for (batch, first, items), part in zip(taken, cut, strict=True)
    }
    count = sum(items for _, _, items in taken)
    return Finding(
        pair=Pair.CLAUDE_LEDGER,
        kind=Kind.UNRECORDED_USAGE,
        start=hour.at,
        end=hour.at + HOUR,
        place=hour.place.named,
        amounts=sides(hour.left, hour.reported.counts),
        tokens=tokens(hour.left),
        usd=cost(hour.left, units),
        cause=Cause.LOST_CALL,
        words=f"{count:,} items of batches whose create was not answered were served: Claude "
        f"reports {tokens(hour.left):,} tokens that no record has. It is our cost, charged to "
        "nobody.",
        requests=[_named(batch, items) for batch, _, items in taken],
        proposal=Proposal(
            repair=RepairKind.SETTLE_ATTEMPTS,
            words="book it as our cost; no customer is charged",
            subjects=subjects,
            automatic=True,
        ),
    )


def _named(batch: OpenBatch, items: int) -> dict[str, Any]:
    return {
        "customer_id": batch.customer_id,
        "request_id": batch.job_id,
        "shard": batch.shard,
        "items": items,
    }
