"""Re-rating: a period priced again from its evidence, and the differences booked as adjustments.

Usage is rated as of the instant it was served and charged by the terms its record names, so only
the price book and the rules of rating can make a difference, never a plan that changed since. What
holds now is the record with its adjustments; a difference is taken against that, so that running
again after booking finds nothing (requirement 7).

Usage without a price gets its first one this way and is metered then. A difference to a price that
was metered already is not: Stripe has billed that amount or will, and the correction belongs on the
customer's next statement.
"""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from tallystick.ledger import adjustments, terms
from tallystick.ledger.adjustments import BookedUsage, NewAdjustment
from tallystick.ledger.database import Transaction
from tallystick.money import from_nano_usd, total
from tallystick.plans import PlanTerms, charge
from tallystick.pricing import PriceBook, Rating, TokenCounts, price_book, rate


@dataclass(frozen=True, slots=True)
class NoPrice:
    """Usage that the price book cannot price, and why; what was booked before stands."""

    usage: BookedUsage
    reason: str


@dataclass(slots=True)
class Rerating:
    """What re-rating a period found, and what of it was booked just now."""

    price_book: str
    records: int = 0
    differences: list[NewAdjustment] = field(default_factory=list[NewAdjustment])
    no_price: list[NoPrice] = field(default_factory=list[NoPrice])
    booked: int = 0

    @property
    def cost_usd(self) -> Decimal:
        """All differences in cost together."""
        return total(each.cost_usd for each in self.differences)

    @property
    def charge_usd(self) -> Decimal:
        """All differences in charge together."""
        return from_nano_usd(sum(each.charge_nano_usd for each in self.differences))


async def rerate(
    tx: Transaction,
    start: datetime,
    end: datetime,
    *,
    customer_id: str | None = None,
    book: PriceBook | None = None,
    booking: bool = False,
) -> Rerating:
    """Price again what was served in [start, end), and book the differences if `booking`."""
    book = book or price_book()
    found = Rerating(book.version)
    known: dict[object, PlanTerms] = {}
    if booking:
        await adjustments.one_at_a_time(tx)
    # Read to the end before anything is written: what is booked must not show in what is read.
    async for used in adjustments.booked_usage(tx, start, end, customer_id):
        found.records += 1
        rating = rate(used.evidence, at=used.served_at, book=book)
        if rating.cost_usd is None:
            found.no_price.append(NoPrice(used, rating.reason))
            continue
        named = (used.key.customer_id, used.plan, used.plan_from, used.own_terms_from)
        if named not in known:
            known[named] = await terms.as_recorded(tx, *named)
        difference = reprice(used, rating, known[named])
        if difference:
            found.differences.append(difference)
    if booking:
        for difference in found.differences:
            found.booked += await adjustments.book(tx, difference)
    return found


def reprice(used: BookedUsage, rating: Rating, terms: PlanTerms) -> NewAdjustment | None:
    """Return what a new rating changes about booked usage; None when nothing.

    Args:
        used: the usage as it holds now.
        rating: its new rating, which has a price.
        terms: what its customer pays by.
    """
    assert rating.cost_usd is not None  # noqa: S101 - asked for above
    tokens = TokenCounts() if rating.status == "not_billed" else rating.tokens
    cost = rating.cost_usd - (used.cost_usd or Decimal(0))
    nano = charge(rating.lines, terms).nano_usd - (used.charge_nano_usd or 0)
    if used.cost_usd is not None and not cost and not nano and tokens == used.tokens:
        return None
    return NewAdjustment(
        usage=used,
        price_book=rating.book_version,
        reason=("first price" if used.cost_usd is None else f"price book {used.price_book} before"),
        status=rating.status,
        cost_usd=cost,
        charge_nano_usd=nano,
        tokens=TokenCounts(*(new - old for new, old in zip(tokens, used.tokens, strict=True))),
        lines=rating.lines,
    )
