"""What caching and the batch price saved over a period, in the customer's own money.

The same question as `tallystick.pricing.savings` answers for one reply, put to sums: lines of the
same model, kind and unit price share the price that they would have had otherwise. It is found in
the book at the instant of the first of them; where that book has no such price (the data was
corrected since), nothing is claimed to have been saved.
"""

from collections.abc import Iterable
from decimal import Decimal

from tallystick.money import EXACT, times, total
from tallystick.plans.billed import Sold
from tallystick.plans.statement import Savings
from tallystick.pricing import TOKEN_KINDS, NoPriceError, PriceBook, TokenKind, price_book

_CACHE_KINDS = (TokenKind.CACHE_WRITE_5M, TokenKind.CACHE_WRITE_1H, TokenKind.CACHE_READ)


def savings(sold: Iterable[Sold], *, book: PriceBook | None = None) -> Savings:
    """Return what the usage would have been charged more without cache and without batches."""
    book = book or price_book()
    lines = list(sold)
    return Savings(
        cache_usd=total(_by_cache(each, book) for each in lines if each.kind in _CACHE_KINDS),
        batch_usd=total(_by_batch(each, book) for each in lines if each.batch),
    )


def _by_cache(sold: Sold, book: PriceBook) -> Decimal:
    unit = _input_unit(sold, book)
    if unit is None:
        return Decimal(0)
    uncached = times(sold.terms.factor(TokenKind.INPUT), times(sold.quantity, unit))
    return EXACT.subtract(uncached, sold.charge_usd)


def _by_batch(sold: Sold, book: PriceBook) -> Decimal:
    if sold.kind == TokenKind.WEB_SEARCH:
        return Decimal(0)  # fees are never discounted
    return EXACT.subtract(EXACT.divide(sold.charge_usd, book.batch_multiplier), sold.charge_usd)


def _input_unit(sold: Sold, book: PriceBook) -> Decimal | None:
    """Return the input price of the tier and multiplier that gave the line its unit price."""
    position = TOKEN_KINDS.index(sold.kind)
    try:
        model = book.model(sold.model)
        tiers = model.tiers_at(sold.first_at)
    except NoPriceError:
        return None
    for us, fast in ((False, False), (True, False), (False, True), (True, True)):
        try:
            multiplier = book.multiplier(model, sold.first_at, batch=sold.batch, us=us, fast=fast)
        except NoPriceError:
            continue
        for tier in tiers:
            if not tier.missing and tier.units(multiplier)[position] == sold.unit_usd:
                return tier.units(multiplier)[0]
    return None
