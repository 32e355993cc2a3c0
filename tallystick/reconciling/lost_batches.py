"""Lost batches: items of a create that nobody answered, of which some or all were served.

A batch that was never found may exist and be served for a day, and its items are many. Usage at the
batch price that no record explains is theirs if it is no more requests than they are and their
prompts fit; a number of items is settled then, in the order of their numbers, and which of them
they were is an estimate. What was settled before tells where the next ones begin, so a proposal
says the same whoever makes it, and does the same however often it is applied.
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
class LostBatch:
    """The items of one model in a shard that was given up. `settled` of `items` were served."""

    job_id: str
    shard: int
    customer_id: str
    model: str
    sent_at: datetime
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
            and self.sent_at - NEAR < hour.at + HOUR
            and hour.at < self.sent_at + SERVED_FOR + NEAR
        )


def explain_batches(hours: Sequence[Difference], batches: Sequence[LostBatch]) -> Iterator[Finding]:
    """Take away what lost batches have served, hour after hour."""
    for hour in sorted(hours, key=lambda hour: (hour.at, hour.place)):
        fitting = sorted(
            (batch for batch in batches if batch.may_be_in(hour)),
            key=lambda batch: (batch.sent_at, batch.job_id, batch.shard),
        )
        count = _count(hour, fitting)
        units = unit_prices(hour.place, hour.at, hour.left.prompt // max(count, 1))
        if count and units is not None:
            yield _finding(hour, _take(count, fitting), units)
            hour.explain(hour.left, hour.requests)


def _count(hour: Difference, fitting: Sequence[LostBatch]) -> int:
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


def _take(count: int, fitting: Sequence[LostBatch]) -> list[tuple[LostBatch, int, int]]:
    """Take so many items, the oldest batches first: of which, from which on, how many."""
    taken: list[tuple[LostBatch, int, int]] = []
    for batch in fitting:
        items = min(count, batch.waiting)
        if items:
            taken.append((batch, batch.settled, items))
            batch.settled += items
            count -= items
    return taken


def _finding(
    hour: Difference, taken: Sequence[tuple[LostBatch, int, int]], units: Units
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


def _named(batch: LostBatch, items: int) -> dict[str, Any]:
    return {
        "customer_id": batch.customer_id,
        "request_id": batch.job_id,
        "shard": batch.shard,
        "items": items,
    }
