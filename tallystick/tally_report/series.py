"""The three records over time, a series for each unit: what the plots draw.

A difference is taken hour by hour, where both sides are known, and only then added up to days: a
side that was not looked at for an hour makes no difference there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from tallystick.ledger.reconciliation_tables import TallyHour
from tallystick.ledger.tally_hours import Side
from tallystick.money import from_nano_usd
from tallystick.pricing.explain import dollars

SIDES: Mapping[Side, str] = {
    "claude": "Claude reports",
    "ledger": "ledger",
    "outbox": "sent to Stripe",
    "stripe": "Stripe counts",
}
COMPARED: tuple[tuple[Side, Side], ...] = (("claude", "ledger"), ("stripe", "outbox"))
"""Which sides have to be equal. Lost calls are in the ledger and never sent, so no more are."""
CHARGE = "charge_nano_usd"
UNITS: Mapping[str, str] = {
    "input": "Input tokens",
    "output": "Output tokens",
    "cache_write_5m": "Cache writes for 5 minutes, tokens",
    "cache_write_1h": "Cache writes for an hour, tokens",
    "cache_read": "Cache reads, tokens",
    "web_search": "Web searches",
    CHARGE: "Charge, dollars",
}
"""The units in the order in which they are shown."""

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
BY_DAY_FROM = 8 * DAY
"""A longer span is drawn by the day: on a telephone, an hour would be less than a dot."""


@dataclass(frozen=True, slots=True)
class Series:
    """One unit from `start` on, in steps of `step`; None where a side is not known.

    `differences` has the first side of `COMPARED` less the second, by the first.
    """

    unit: str
    start: datetime
    step: timedelta
    sides: Mapping[Side, Sequence[int | None]]
    differences: Mapping[Side, Sequence[int | None]]

    @property
    def title(self) -> str:
        """Its unit's name, for people."""
        return title(self.unit)

    def total(self, side: Side) -> int | None:
        """Return all of one side, None where nothing of it is known."""
        return _sum(self.sides[side])


def series_of(hours: Iterable[TallyHour], start: datetime, end: datetime) -> list[Series]:
    """Lay out the hours of [start, end), whole hours in UTC, of units that were used at all."""
    by_unit: dict[str, dict[datetime, TallyHour]] = {}
    for hour in hours:
        if any(getattr(hour, side) for side in SIDES):
            by_unit.setdefault(hour.unit, {})[hour.hour] = hour
    units = [*(unit for unit in UNITS if unit in by_unit), *sorted(by_unit.keys() - UNITS.keys())]
    return [_series(unit, by_unit[unit], start, end) for unit in units]


def title(unit: str) -> str:
    """Name a unit, for people."""
    return UNITS.get(unit, unit.replace("_", " ").capitalize())


def amount(unit: str, value: int) -> str:
    """Write a quantity of a unit for reading."""
    return dollars(from_nano_usd(value)) if unit == CHARGE else f"{value:,}"


def exact_amount(unit: str, value: int) -> int | Decimal:
    """Return a quantity of a unit as it stands in a table: dollars, or a count."""
    return from_nano_usd(value) if unit == CHARGE else value


def _series(
    unit: str, known: Mapping[datetime, TallyHour], start: datetime, end: datetime
) -> Series:
    step = HOUR if end - start <= BY_DAY_FROM else DAY
    first = start if step == HOUR else start.replace(hour=0)
    buckets: list[list[TallyHour]] = [[] for _ in range(-(-(end - first) // step))]
    for at, hour in known.items():
        buckets[(at - first) // step].append(hour)

    def of(side: Side) -> list[int | None]:
        return [_sum(getattr(hour, side) for hour in bucket) for bucket in buckets]

    def less(side: Side, other: Side) -> list[int | None]:
        return [
            _sum(_less(getattr(hour, side), getattr(hour, other)) for hour in bucket)
            for bucket in buckets
        ]

    return Series(
        unit=unit,
        start=first,
        step=step,
        sides={side: of(side) for side in SIDES},
        differences={side: less(side, other) for side, other in COMPARED},
    )


def _less(value: int | None, other: int | None) -> int | None:
    return None if value is None or other is None else value - other


def _sum(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
