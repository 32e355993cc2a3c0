"""Anthropic's cost report against what the price book makes of the usage, by the UTC day.

List prices are compared, since discounts are between Anthropic and us. Where tokens differ already
their worth explains a difference in money, and they have rows of their own; refusals that the usage
report has and the cost report has not are the normal case. What then differs is a matter of price:
the book and the list are not the same, and an operator has to hear of it (facts on Claude, 'Usage
and cost reports').

Searches have a price and no model of their own, so they are compared for all models together.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import NamedTuple

from tallystick.money import EXACT, to_nano_usd, total
from tallystick.pricing import TokenCounts
from tallystick.pricing.explain import dollars
from tallystick.reconciling.differences import NOTHING, Difference
from tallystick.reconciling.findings import Cause, Finding, Kind, Pair
from tallystick.reconciling.refusals import explain_refusals
from tallystick.reconciling.reported import CostRow, Place, model_of
from tallystick.reconciling.worth import bounds

TOKENS, WEB_SEARCH = "tokens", "web_search"
_TOKEN_COMPONENTS = ("input", "output", "cache_write_5m", "cache_write_1h", "cache_read", TOKENS)
TOLERATED = Decimal("0.000001")
"""Dollars by which each row of the report may be off: it is written in fractions of a cent."""
_DAY = timedelta(days=1)


class Where(NamedTuple):
    """A day, a model ('' for none) and a component of its cost."""

    day: date
    model: str
    component: str

    @classmethod
    def of(cls, day: date, model: str, component: str) -> "Where":
        """Name a place in the same words whoever tells of it."""
        if component in _TOKEN_COMPONENTS:
            return cls(day, model_of(model) if model else "", TOKENS)
        return cls(day, "", component)


@dataclass(frozen=True, slots=True)
class DayCost:
    """What a side says; `rows` are those of the report or, of ours, records without a price."""

    usd: Decimal = Decimal(0)
    rows: int = 0

    def plus(self, other: "DayCost") -> "DayCost":
        """Return the sum."""
        return DayCost(EXACT.add(self.usd, other.usd), self.rows + other.rows)


@dataclass(frozen=True, slots=True)
class CostDifference:
    """A place in which both sides are not the same."""

    where: Where
    reported: DayCost
    known: DayCost

    @property
    def usd(self) -> Decimal:
        """By how much the report is above us."""
        return EXACT.subtract(self.reported.usd, self.known.usd)

    @property
    def tolerated(self) -> Decimal:
        """How much is nothing."""
        return TOLERATED * max(self.reported.rows, 1)


def by_component(rows: Iterable[tuple[CostRow, int]]) -> dict[Where, DayCost]:
    """Add up rows of the report; each comes with how many it stands for."""
    sums: dict[Where, DayCost] = {}
    for row, count in rows:
        where = Where.of(row.day, row.model, row.component)
        sums[where] = sums.get(where, DayCost()).plus(DayCost(row.list_usd, count))
    return sums


def cost_differences(
    reported: Mapping[Where, DayCost], known: Mapping[Where, DayCost]
) -> list[CostDifference]:
    """Return where both sides differ by more than the report's own roundings."""
    found = [
        CostDifference(where, reported.get(where, DayCost()), known.get(where, DayCost()))
        for where in sorted({*reported, *known})
    ]
    return [each for each in found if abs(each.usd) > each.tolerated]


def judge(found: CostDifference, usage: Sequence[Difference]) -> Finding | None:
    """Return the finding of a difference; None where tokens that differ explain it.

    Args:
        found: what differs.
        usage: the day's usage of both sides by the hour, in the places of its model, or of all.
            What is free of it and told by one side only is taken away.
    """
    at = datetime.combine(found.where.day, time.min, UTC)
    free = [each.served.free if explain_refusals(each) is None else NOTHING for each in usage]
    counted = _by_place(usage, [each.left for each in usage], found.where.component)
    refused = _by_place(usage, free, found.where.component)
    if counted:
        if _is_worth(found, at, counted):
            return None
        cause = Cause.UNKNOWN
        why = "Tokens differ too, and do not explain it."
    elif refused and _is_worth(found, at, refused):
        cause = Cause.REFUSALS
        why = "It is what refusals before any output would cost, which should be free."
    elif found.where.component in (TOKENS, WEB_SEARCH):
        cause = Cause.PRICE
        why = "Tokens are the same on both sides: check the price book against Anthropic's list."
    else:
        cause = Cause.UNKNOWN
        why = "The price book does not know this cost."
    if found.known.rows:
        why += f" {found.known.rows:,} of our records have no price yet."
    return _finding(found, at, cause, why)


def _by_place(
    usage: Sequence[Difference], counts: Sequence[TokenCounts], component: str
) -> Mapping[Place, TokenCounts]:
    """Add up what a component is the price of, by place; places that come to nothing left out."""
    sums: dict[Place, TokenCounts] = {}
    for each, counted in zip(usage, counts, strict=True):
        sums[each.place] = sums.get(each.place, NOTHING).plus(_of(counted, component))
    return {place: counted for place, counted in sums.items() if any(counted)}


def _of(counts: TokenCounts, component: str) -> TokenCounts:
    match component:
        case "tokens":
            return counts._replace(web_search=0)
        case "web_search":
            return TokenCounts(web_search=counts.web_search)
        case _:
            return NOTHING


def _is_worth(found: CostDifference, at: datetime, counts: Mapping[Place, TokenCounts]) -> bool:
    """Tell whether counts cost what differs, in whatever length their prompts were."""
    low: list[Decimal] = []
    high: list[Decimal] = []
    for place, counted in counts.items():
        worth = bounds(place, at, counted)
        if worth is None:
            return False
        low.append(worth[0])
        high.append(worth[1])
    return total(low) - found.tolerated <= found.usd <= total(high) + found.tolerated


def _finding(found: CostDifference, at: datetime, cause: Cause, why: str) -> Finding:
    where = found.where
    of = f" for {where.model}" if where.model else ""
    what = "" if where.component == TOKENS else f" ({where.component.replace('_', ' ')})"
    place = {"model": where.model, "component": where.component if what else ""}
    return Finding(
        pair=Pair.COST_LEDGER,
        kind=Kind.COST_DIFFERS,
        start=at,
        end=at + _DAY,
        place={name: value for name, value in place.items() if value},
        amounts={
            "nano_usd": {
                "cost": to_nano_usd(found.reported.usd),
                "ledger": to_nano_usd(found.known.usd),
            }
        },
        cause=cause,
        words=f"Anthropic's list price comes to {dollars(found.reported.usd)}{of}{what}, and the "
        f"price book to {dollars(found.known.usd)}. {why}",
        usd=found.usd,
    )
