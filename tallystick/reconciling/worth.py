"""What usage without a record costs us, by the price book.

A report's row is a sum over requests, so where a price depends on the length of each prompt the
row's mean prompt decides. Usage in a tier, geography or speed that has no established price is
worth None here, never nothing (facts on Claude, 'Read this first', 5).
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from tallystick.money import times, total
from tallystick.pricing import NoPriceError, PriceBook, TokenCounts, price_book
from tallystick.reconciling.reported import BATCH, GLOBAL, STANDARD, Place

Units = Sequence[Decimal]
"""US dollars for one of each kind, in the order of `TokenKind`."""


def unit_prices(
    place: Place, at: datetime, prompt: int, *, book: PriceBook | None = None
) -> Units | None:
    """Return the prices of a place for a prompt of so many tokens; None where there are none."""
    book = book or price_book()
    if (
        place.service_tier not in (STANDARD, BATCH)
        or place.inference_geo not in (GLOBAL, "us")
        or place.speed not in (STANDARD, "fast")
    ):
        return None
    try:
        model = book.model(place.model)
        multiplier = book.multiplier(
            model,
            at,
            batch=place.service_tier == BATCH,
            us=place.inference_geo == "us",
            fast=place.speed == "fast",
        )
        return (*model.tier(at, prompt).units(multiplier), book.web_search_usd)
    except NoPriceError:
        return None


def cost(counts: TokenCounts, units: Units) -> Decimal:
    """Return what counts cost at these prices; below zero for those below zero."""
    return total(times(count, unit) for count, unit in zip(counts, units, strict=True))


def worth(
    place: Place, at: datetime, counts: TokenCounts, *, requests: int | None = 1
) -> Decimal | None:
    """Return what so many requests in a place cost together; None where there is no price."""
    units = unit_prices(place, at, max(counts.prompt, 0) // max(requests or 1, 1))
    return None if units is None else cost(counts, units)


def bounds(place: Place, at: datetime, counts: TokenCounts) -> tuple[Decimal, Decimal] | None:
    """Return the least and the most that counts cost, whatever the lengths of their prompts."""
    if not any(counts):
        return Decimal(0), Decimal(0)
    known = price_book().models.get(place.model)
    if known is None:
        return None
    costs: list[Decimal] = []
    for tier in known.tiers_at(at):
        units = unit_prices(place, at, tier.prompt_over + 1)
        if units is None:
            return None
        costs.append(cost(counts, units))
    return min(costs), max(costs)
