"""What this Stripe accepted, and what of it counts: its side of the tally.

An accepted event is one entry for good; whether it counts can change once, by rejection or
cancellation. Identifiers are remembered for 24 hours of the sandbox's clock and no longer: a
resend after that counts again, which is the trap a biller must not fall into (facts on Stripe,
'Read this first' 2).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

DEDUPLICATION_SECONDS = 24 * 3600


@dataclass(slots=True)
class Entry:
    """One accepted meter event. `timestamp` and `received_at` are Unix seconds."""

    number: int
    path: str
    identifier: str
    event_name: str
    customer: str | None
    value: str | None
    timestamp: int
    received_at: float
    idempotency_key: str | None
    rejected: str | None = None
    """The code of its error report, `lost` or `cancelled`; None while it counts."""
    fault: str | None = None
    """The fault it met, where it counts otherwise than its sender was told."""
    besides: Mapping[str, str] = field(default_factory=dict[str, str])
    """What its payload names besides customer and value, of which Stripe makes nothing."""

    @property
    def amount(self) -> int:
        """The value of an entry that counts."""
        return int(self.value or 0)

    def shown(self) -> dict[str, Any]:
        """Return the entry as JSON."""
        return {
            **{name: getattr(self, name) for name in self.__slots__},
            "effective": self.rejected is None,
        }


class Journal:
    """Every accepted event in order of receipt."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._by_pair: defaultdict[tuple[str, str | None], list[Entry]] = defaultdict(list)
        self._identifiers: dict[str, Entry] = {}

    def knows(self, identifier: str, now: float) -> bool:
        """Say whether the identifier was used within the last 24 hours."""
        while self._identifiers:
            oldest, entry = next(iter(self._identifiers.items()))  # they are in order of receipt
            if now - entry.received_at < DEDUPLICATION_SECONDS:
                break
            del self._identifiers[oldest]
        return identifier in self._identifiers

    def accept(self, **fields: Any) -> Entry:
        """Enter an event; its identifier is taken from now on."""
        entry = Entry(number=len(self.entries) + 1, **fields)
        self.entries.append(entry)
        self._by_pair[entry.event_name, entry.customer].append(entry)
        self._identifiers.setdefault(entry.identifier, entry)
        return entry

    def find(self, event_name: str, identifier: str, now: float) -> Entry | None:
        """Return the event that an adjustment may name: received within the last 24 hours."""
        entry = self._identifiers.get(identifier) if self.knows(identifier, now) else None
        return entry if entry is not None and entry.event_name == event_name else None

    def effective(self, event_name: str, customer: str) -> Iterator[Entry]:
        """Return what counts for one customer on one meter, in order of receipt."""
        return (e for e in self._by_pair.get((event_name, customer), ()) if e.rejected is None)

    def totals(self) -> dict[str, Any]:
        """Return effective counts and exact sums, by meter and by meter and customer."""
        by_meter: defaultdict[str, list[Entry]] = defaultdict(list)
        by_pair: list[dict[str, Any]] = []
        for (event_name, customer), entries in sorted(
            self._by_pair.items(), key=lambda item: (item[0][0], item[0][1] or "")
        ):
            counting = [entry for entry in entries if entry.rejected is None]
            by_meter[event_name] += counting
            by_pair.append({"event_name": event_name, "customer": customer, **_sum(counting)})
        return {
            "accepted": len(self.entries),
            "effective": sum(len(entries) for entries in by_meter.values()),
            "by_event_name": {name: _sum(entries) for name, entries in by_meter.items()},
            "by_customer": by_pair,
        }


def _sum(entries: Iterable[Entry]) -> dict[str, Any]:
    amounts = [entry.amount for entry in entries]
    return {"count": len(amounts), "sum": str(sum(amounts))}
