"""Both sides of a few hours of usage, laid side by side as a comparison does it, without a ledger.

What was served is told twice: with its record, and as the report has it, which may be moved,
changed or missing. Hours are those of one morning; minutes count from its begin.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from tallystick.pricing import TokenCounts
from tallystick.reconciling import usage
from tallystick.reconciling.differences import Difference, Served, differences
from tallystick.reconciling.edges import HOUR, NEAR, Edge, edges_of
from tallystick.reconciling.findings import Finding
from tallystick.reconciling.lost_calls import Call, Known
from tallystick.reconciling.minutes import MINUTE
from tallystick.reconciling.open_batches import OpenBatch, explain_batches, leave_unread
from tallystick.reconciling.remains import remaining
from tallystick.reconciling.reported import At, Place, Reported, place_of

MORNING = datetime(2026, 11, 20, 6, tzinfo=UTC)
SONNET, HAIKU = "claude-sonnet-5-5", "claude-haiku-4-5-20251001"
PLACE = place_of(SONNET, "standard", "global", "standard")
LONGEST = timedelta(minutes=10)
Told = TypeVar("Told")


def at(minute: float) -> datetime:
    return MORNING + minute * MINUTE


@dataclass
class Hours:
    """Some hours; what is entered is there on both sides unless it says otherwise."""

    count: int = 4
    calls: list[Call] = field(default_factory=list)
    batches: list[OpenBatch] = field(default_factory=list)
    unread: list[OpenBatch] = field(default_factory=list)
    told_behind: bool = True
    """Whether the report tells the hour behind the last one."""
    unjudged: set[datetime] = field(default_factory=set)
    """Hours that the comparison left to the next one."""
    reported: list[tuple[Place, datetime, Reported]] = field(default_factory=list)
    served: list[tuple[Place, datetime, Served]] = field(default_factory=list)

    def use(
        self,
        minute: float,
        counts: TokenCounts,
        *,
        reported_at: float | None = None,
        told_as: TokenCounts | None = None,
        free: bool = False,
        place: Place = PLACE,
    ) -> None:
        """Serve a call that has its record."""
        refused = (counts, 1) if free else (TokenCounts(), 0)
        self.record(minute, Served(counts, 1, *refused), place=place)
        self.report(minute if reported_at is None else reported_at, told_as or counts, place=place)

    def record(self, minute: float, served: Served, *, place: Place = PLACE) -> None:
        self.served.append((place, at(minute), served))

    def report(
        self,
        minute: float,
        counts: TokenCounts,
        requests: int | None = 1,
        *,
        place: Place = PLACE,
    ) -> None:
        self.reported.append((place, at(minute), Reported(counts, requests)))

    def lose(
        self, minute: float, estimate: int, known: Known = Known.NOTHING, **changes: object
    ) -> Call:
        """Let a call end without an answer."""
        facts = {
            "attempt_id": len(self.calls) + 1,
            "customer_id": "acme",
            "request_id": f"r-{len(self.calls) + 1}",
            "known": known,
            "model": PLACE.model,
            "started_at": at(minute),
            "until": at(minute) + (MINUTE if known is Known.FAILED else LONGEST),
            "estimated_prompt": estimate,
        }
        self.calls.append(Call(**(facts | changes)))  # type: ignore[arg-type]
        return self.calls[-1]

    # --- The comparison ---------------------------------------------------------------------------
    def compare(self) -> list[Finding]:
        """Find what differs, as `activities.usage_comparison` does."""
        looked = self.look()
        edges = self._edges(looked)
        found = list(usage.explain_told_otherwise(looked, edges))
        self.unjudged = usage.leave_to_next_run(looked, edges) if not self.told_behind else set()
        at_batch_price = usage.excess(looked, batch=True)
        self.unjudged |= leave_unread(at_batch_price, self.unread)
        found += explain_batches(at_batch_price, self.batches)
        hours = usage.to_narrow(usage.excess(looked, batch=False), self.calls)
        more, too_early = usage.explain_calls(
            hours, self.calls, self._reported(MINUTE), self._served(MINUTE)
        )
        self.unjudged |= too_early
        found += more
        return [*found, *(remaining(hour, ["apikey_1"]) for hour in usage.left(looked))]

    def look(self) -> dict[Place, list[Difference]]:
        hours = [MORNING + number * HOUR for number in range(self.count)]
        return differences(hours, self._reported(HOUR), self._served(HOUR))

    def _edges(self, looked: dict[Place, list[Difference]]) -> dict[At, Edge]:
        near = self._served(NEAR)
        return {
            (place, edge): Edge(
                near.get((place, edge - NEAR), Served()).counts,
                near.get((place, edge), Served()).counts,
            )
            for place, hours in looked.items()
            for edge in edges_of(hours)
        }

    def _reported(self, width: timedelta) -> dict[At, Reported]:
        return _summed(self.reported, width, Reported.plus, self._end)

    def _served(self, width: timedelta) -> dict[At, Served]:
        end = self._end + NEAR if width == NEAR else self._end
        return _summed(self.served, width, Served.plus, end)

    @property
    def _end(self) -> datetime:
        return MORNING + self.count * HOUR


def _summed(
    rows: Iterable[tuple[Place, datetime, Told]],
    width: timedelta,
    plus: Callable[[Told, Told], Told],
    end: datetime,
) -> dict[At, Told]:
    sums: dict[At, Told] = {}
    for place, when, told in rows:
        bucket = (place, MORNING + (when - MORNING) // width * width)
        if MORNING <= when < end:
            sums[bucket] = plus(sums[bucket], told) if bucket in sums else told
    return sums


def settled(found: Sequence[Finding]) -> dict[int, TokenCounts]:
    """Return what the proposals of findings book for each attempt."""
    booked: dict[int, TokenCounts] = {}
    for each in found:
        subjects = each.proposal.subjects if each.proposal else {}
        for subject, facts in subjects.items():
            assert int(subject) not in booked
            booked[int(subject)] = TokenCounts(
                *(facts[f"{kind}_tokens"] for kind in _KINDS), facts["web_searches"]
            )
    return booked


_KINDS = ("input", "output", "cache_write_5m", "cache_write_1h", "cache_read")
