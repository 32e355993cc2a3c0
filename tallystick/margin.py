"""What we earn: what usage was charged, less all that it has cost us, by customer, model or day.

Four things cost: Claude's price for what was answered; calls that were served and brought no
answer, by Anthropic's report where it has settled them and estimated where not; and what Stripe
takes of each payment. Each is kept apart, so that an estimate is never added to a known cost
without saying so. Nothing here is rounded.

Anthropic's own cost report stands beside it for the days that were read: it is another count of the
same cost, after discounts that the price book does not know, and its difference from ours is told,
never mixed into the margin.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Literal

from tallystick.ledger import attempts, margins
from tallystick.ledger.database import Transaction
from tallystick.ledger.margins import Place
from tallystick.lost_calls import estimated_cost
from tallystick.money import EXACT, from_nano_usd, total
from tallystick.plans.fees import FeeTerms
from tallystick.reconciling.reported import model_of

By = Literal["customer", "model", "day"]
ALL = "in all"
_NOTHING = Decimal(0)
_DAY = timedelta(days=1)


@dataclass(slots=True)
class Margin:
    """What one customer, model or day has brought in and cost; US dollars, exact.

    `unpriced` of the requests have no price yet and count for nothing on both sides.
    """

    of: str
    requests: int = 0
    unpriced: int = 0
    revenue_usd: Decimal = _NOTHING
    cost_usd: Decimal = _NOTHING
    """Claude's price for the answers."""
    lost_usd: Decimal = _NOTHING
    """What calls without an answer have cost, as Anthropic has reported it."""
    lost_estimated_usd: Decimal = _NOTHING
    """What those may have cost that no report has settled."""
    fees_usd: Decimal = _NOTHING

    @property
    def provider_usd(self) -> Decimal:
        """All that Claude has cost, as far as we know."""
        return total([self.cost_usd, self.lost_usd, self.lost_estimated_usd])

    @property
    def margin_usd(self) -> Decimal:
        """What is left."""
        return EXACT.subtract(self.revenue_usd, total([self.provider_usd, self.fees_usd]))

    @property
    def margin_percent(self) -> Decimal | None:
        """What is left of the revenue in percent, to a tenth; None where there is no revenue."""
        if not self.revenue_usd:
            return None
        return (self.margin_usd * 100 / self.revenue_usd).quantize(Decimal("0.1"))

    @property
    def loses_money(self) -> bool:
        """Whether it costs more than it brings in."""
        return self.margin_usd < 0

    def add(self, other: "Margin") -> None:
        """Count another one in."""
        self.requests += other.requests
        self.unpriced += other.unpriced
        for name in ("revenue_usd", "cost_usd", "lost_usd", "lost_estimated_usd", "fees_usd"):
            setattr(self, name, total([getattr(self, name), getattr(other, name)]))


@dataclass(frozen=True, slots=True)
class Reported:
    """What Anthropic's cost report says, after discounts, and what we know of the same days."""

    amount_usd: Decimal
    known_usd: Decimal

    @property
    def difference_usd(self) -> Decimal:
        """By how much the report is above us."""
        return EXACT.subtract(self.amount_usd, self.known_usd)


@dataclass(frozen=True, slots=True)
class Earnings:
    """The margin of a span of time: each line of it, all of them together, and the report's side.

    `reported` compares the days of the span of which the cost report was read (`reported_days` of
    all `days`, whole ones in UTC), and `reported_by` the same for each line; not for customers, of
    whom Anthropic knows nothing.
    """

    rows: tuple[Margin, ...]
    total: Margin
    days: int
    reported_days: int
    reported: Reported | None
    reported_by: dict[str, Reported]


async def earnings(
    tx: Transaction, start: datetime, end: datetime, by: By, fees: FeeTerms
) -> Earnings:
    """Work out the margin of [start, end); to be read in one snapshot.

    Days come in their order, customers and models with the worst first.
    """
    sums = await _sums(tx, start, end, fees)
    name = _NAMES[by]
    rows = _grouped(sums, name)
    (whole,) = _grouped(sums, _all).values() or [Margin(ALL)]
    first, last = _whole_days(start, end)
    report = await margins.reported(tx, first, last)
    return Earnings(
        rows=tuple(
            sorted(rows.values(), key=lambda row: row.of if by == "day" else row.margin_usd)
        ),
        total=whole,
        days=max((last - first).days, 0),
        reported_days=len({each.day for each in report}),
        reported=_compared(sums, report, _all).get(ALL),
        reported_by=_compared(sums, report, name),
    )


async def _sums(
    tx: Transaction, start: datetime, end: datetime, fees: FeeTerms
) -> Mapping[Place, Margin]:
    sums: defaultdict[Place, Margin] = defaultdict(lambda: Margin(""))
    for each in await margins.answered(tx, start, end):
        sums[each.place] = Margin(
            "",
            requests=each.requests,
            unpriced=each.unpriced,
            revenue_usd=from_nano_usd(each.charge_nano_usd),
            cost_usd=each.cost_usd,
        )
    for each in await margins.settled(tx, start, end):
        sums[each.place].lost_usd = each.cost_usd
    async for attempt in attempts.indeterminate(tx, start=start, end=end):
        estimate = Margin("", lost_estimated_usd=estimated_cost(attempt))
        sums[Place(attempt.customer_id, None, None)].add(estimate)
        sums[Place(None, attempt.started_at.astimezone(UTC).date(), attempt.model)].add(estimate)
    for each in await margins.paid(tx, start, end):
        sums[each.place].fees_usd = fees.fee(each.cents, each.payments)
    return sums


# --- Lines ----------------------------------------------------------------------------------------
_Name = Callable[[Place], str | None]
"""To which line a sum belongs; None for one that is counted in another way."""


def _customer(place: Place) -> str | None:
    return place.customer_id


def _model(place: Place) -> str | None:
    return None if place.model is None else model_of(place.model)


def _day(place: Place) -> str | None:
    return None if place.day is None else place.day.isoformat()


def _all(place: Place) -> str | None:
    return None if place.day is None else ALL


_NAMES: Mapping[By, _Name] = {"customer": _customer, "model": _model, "day": _day}


def _grouped(sums: Mapping[Place, Margin], name: _Name) -> dict[str, Margin]:
    lines: dict[str, Margin] = {}
    for place, margin in sums.items():
        if (of := name(place)) is not None:
            lines.setdefault(of, Margin(of)).add(margin)
    return lines


def _compared(
    sums: Mapping[Place, Margin], report: Sequence[margins.Reported], name: _Name
) -> dict[str, Reported]:
    """Lay the report's days beside ours, line by line."""
    days = {each.day for each in report}
    known = _grouped({place: each for place, each in sums.items() if place.day in days}, name)
    told: defaultdict[str, Decimal] = defaultdict(Decimal)
    for each in report:
        if (of := name(Place(None, each.day, each.model))) is not None:
            told[of] = EXACT.add(told[of], each.amount_usd)
    return {
        of: Reported(told[of], known[of].provider_usd if of in known else _NOTHING)
        for of in {*told, *known}
    }


def _whole_days(start: datetime, end: datetime) -> tuple[date, date]:
    """Return the first UTC day that lies in the span whole, and the day after the last."""
    start, end = start.astimezone(UTC), end.astimezone(UTC)
    return (start + _DAY - timedelta(microseconds=1)).date(), end.date()
