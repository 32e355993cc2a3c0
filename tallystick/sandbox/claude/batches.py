"""The batches of one stand-in, and how they get on with time.

No task works on a batch. How far it is follows from the clock: its items take their turn one after
the other at the pace that is set, until all are done, the batch was canceled, or its 24 hours are
over; whoever asks, asks what time has made of it. So a clock that stands still holds a batch where
it is, and setting the clock a day ahead expires what was left, exactly at the hour.

The order of turns is not that of the requests, so what expires is no tail of them; the file of
results is in yet another order. What was served is journalled once, when the batch ended.
"""

import math
import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tallystick.sandbox.claude.batch_items import CANCELED, EXPIRED, Item, Outcome, Unserved
from tallystick.sandbox.claude.errors import ApiError
from tallystick.sandbox.claude.journal import BatchLot, Journal
from tallystick.sandbox.clock import Clock

LIFETIME = 24 * 3_600.0
KEPT = 29 * 24 * 3_600.0
"""Seconds from creation until a batch expires, and until its results are gone."""

_ROUNDING = 1e-6
"""Of an item: sums of fractions fall short of the whole they stand for."""


class BatchPace(BaseModel):
    """How batches get on.

    `items_per_second` 0 holds them where they are. `in_flight`: so many of the items that had not
    had their turn when a batch was canceled are still served, and billed. `cache_hits`: the share
    of items that find what is cached; caching in batches is best effort. `hidden_for`: seconds from
    creation until a batch is found and listed (anthropics/anthropic-sdk-python#1432).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    items_per_second: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 50_000.0
    in_flight: Annotated[int, Field(ge=0)] = 100
    cache_hits: Annotated[float, Field(ge=0, le=1)] = 0.75
    hidden_for: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class Batch:
    """One batch; `items` are in the order of their turns and, once it ended, of the results.

    Args:
        lot: what its items have in common.
        items: at least one.
        now: seconds since the epoch.
    """

    def __init__(self, lot: BatchLot, items: Sequence[Item], now: float):
        self.lot = lot
        self.items = list(items)
        self.created_at = now
        self.cancel_initiated_at: float | None = None
        self._counts = Counter[Outcome]()
        self._turns = len(self.items)
        self._done = 0.0
        self._done_at = now
        random.Random(1).shuffle(self.items)  # noqa: S311 - the same each time, by intent

    @property
    def id(self) -> str:
        """The batch's id."""
        return self.lot.batch_id

    @property
    def status(self) -> Literal["in_progress", "canceling", "ended"]:
        """The processing status."""
        if self.lot.ended_at is not None:
            return "ended"
        return "in_progress" if self.cancel_initiated_at is None else "canceling"

    def has_results(self, now: float) -> bool:
        """Tell whether the file of results is there: ended, and not yet archived."""
        return self.status == "ended" and now < self.created_at + KEPT

    def advance(self, now: float, pace: BatchPace, journal: Journal) -> None:
        """Let time pass until `now`; journals what was served when the batch ends by it."""
        expires_at = self.created_at + LIFETIME
        until = min(now, expires_at)
        if self.status == "ended" or until < self._done_at:
            return
        rate = pace.items_per_second
        reached = self._done + (until - self._done_at) * rate
        if reached + _ROUNDING >= self._turns:
            left = max(self._turns - self._done, 0)
            ended_at = self._done_at + (left / rate if rate else 0)
            self._end(self._turns, min(ended_at, until), journal)
        elif until == expires_at:
            self._end(math.floor(reached + _ROUNDING), expires_at, journal)
        else:
            self._done, self._done_at = reached, until

    def cancel(self, now: float, pace: BatchPace) -> None:
        """Give no further turns but to what is in flight.

        Raises:
            ApiError: 400 for a batch that ended; which status that gets is not documented.
        """
        if self.status == "ended":
            raise ApiError(400, f"{self.id} has ended and cannot be canceled")
        if self.cancel_initiated_at is None:
            self.cancel_initiated_at = now
            begun = math.floor(self._done + _ROUNDING)
            self._turns = min(begun + pace.in_flight, len(self.items))

    def as_dict(self, base_url: str, now: float) -> dict[str, Any]:
        """Return the batch as the API shows it; its results are at `base_url`."""
        archived_at = self.created_at + KEPT
        return {
            "id": self.id,
            "type": "message_batch",
            "processing_status": self.status,
            "request_counts": {
                "processing": len(self.items) - self._counts.total(),
                "succeeded": self._counts["succeeded"],
                "errored": self._counts["errored"],
                "canceled": self._counts["canceled"],
                "expired": self._counts["expired"],
            },
            "created_at": _rfc3339(self.created_at),
            "expires_at": _rfc3339(self.created_at + LIFETIME),
            "ended_at": _rfc3339(self.lot.ended_at),
            "cancel_initiated_at": _rfc3339(self.cancel_initiated_at),
            "archived_at": _rfc3339(archived_at) if now >= archived_at else None,
            "results_url": f"{base_url}/v1/messages/batches/{self.id}/results"
            if self.has_results(now)
            else None,
        }

    def _end(self, done: int, ended_at: float, journal: Journal) -> None:
        self.lot.ended_at = ended_at
        for item in self.items[done:]:
            item.work = EXPIRED if self.cancel_initiated_at is None else CANCELED
        served: list[Item] = []
        for item in self.items:
            answer = item.answer()
            if isinstance(answer, Unserved):
                self._counts[answer.outcome] += 1
                continue
            self._counts["succeeded"] += 1
            self.lot.served.add(answer.served)
            self.lot.billable.add_billable(answer.billable)
            served.append(item)
        journal.serve_batch(self.lot, served)
        for outcome, items in self._counts.items():
            if outcome != "succeeded":
                journal.refuse(f"batch item {outcome}", items)
        random.Random(2).shuffle(self.items)  # noqa: S311 - as above


class Batches:
    """All batches, oldest first; every look at one lets time pass for it."""

    def __init__(self, clock: Clock, journal: Journal):
        self._clock = clock
        self._journal = journal
        self._batches: dict[str, Batch] = {}
        self._pace = BatchPace()

    @property
    def pace(self) -> BatchPace:
        """How batches get on from now on."""
        return self._pace

    @pace.setter
    def pace(self, pace: BatchPace) -> None:
        self.advance()
        self._pace = pace

    def advance(self) -> None:
        """Let time pass for all."""
        now = self._clock()
        for batch in self._batches.values():
            batch.advance(now, self._pace, self._journal)

    def add(self, lot: BatchLot, items: Sequence[Item]) -> Batch:
        """Begin a batch."""
        batch = self._batches[lot.batch_id] = Batch(lot, items, self._clock())
        return batch

    def find(self, batch_id: str) -> Batch:
        """Return a batch.

        Raises:
            ApiError: 404, also for one that is still hidden.
        """
        batch = self._batches.get(batch_id)
        if batch is None or not self._is_shown(batch):
            raise ApiError(404, f"No message batch {batch_id!r}")
        batch.advance(self._clock(), self._pace, self._journal)
        return batch

    def newest_first(self) -> list[Batch]:
        """Return those that are shown."""
        self.advance()
        return [batch for batch in reversed(self._batches.values()) if self._is_shown(batch)]

    def cancel(self, batch_id: str) -> Batch:
        """Cancel a batch; see `Batch.cancel` for what it raises."""
        batch = self.find(batch_id)
        batch.cancel(self._clock(), self._pace)
        return batch

    def delete(self, batch_id: str) -> None:
        """Forget a batch; what it served stays in the journal.

        Raises:
            ApiError: 400 while it is being processed, 404.
        """
        if self.find(batch_id).status != "ended":
            raise ApiError(400, f"{batch_id} is being processed; cancel it first")
        del self._batches[batch_id]

    def _is_shown(self, batch: Batch) -> bool:
        return self._clock() >= batch.created_at + self._pace.hidden_for


def _rfc3339(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
