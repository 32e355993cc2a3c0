"""What caching and the batch price saved on a rated reply, in money (requirement 68).

The price that would have applied without the saving comes from the book and the instant that rated
the reply, never from a multiplier: read prices differ from model to model.
"""

from decimal import Decimal

from tallystick.contracts import BillLine
from tallystick.money import EXACT, total
from tallystick.pricing.book import PriceBook, price_book
from tallystick.pricing.rating import Rating
from tallystick.pricing.tokens import TOKEN_KINDS, TokenKind

_CACHE_KINDS = (TokenKind.CACHE_WRITE_5M, TokenKind.CACHE_WRITE_1H, TokenKind.CACHE_READ)


def cache_savings(rating: Rating, *, book: PriceBook | None = None) -> Decimal:
    """Return what the reply would have cost more with its whole prompt at the input price.

    Less than zero where writing to the cache cost more than reading from it saved, as it does on
    the first request of several.

    Raises:
        ValueError: when another book rated the reply.
    """
    book = book or price_book()
    return total(
        EXACT.multiply(
            line.quantity, EXACT.subtract(_input_unit(line, rating, book), line.unit_usd)
        )
        for line in rating.lines
        if line.kind in _CACHE_KINDS
    )


def batch_savings(rating: Rating, *, book: PriceBook | None = None) -> Decimal:
    """Return what the reply would have cost more outside a batch; fees are never discounted."""
    if not rating.batch:
        return Decimal(0)
    share = (book or price_book()).batch_multiplier
    return total(
        EXACT.subtract(EXACT.divide(line.amount_usd, share), line.amount_usd)
        for line in rating.lines
        if line.kind != TokenKind.WEB_SEARCH
    )


def _input_unit(line: BillLine, rating: Rating, book: PriceBook) -> Decimal:
    position = TOKEN_KINDS.index(TokenKind(line.kind))
    for tier in book.model(line.model).tiers_at(rating.at):
        if tier.missing:
            continue
        units = tier.units(rating.multiplier)
        if units[position] == line.unit_usd:
            return units[0]
    raise ValueError(f"book {book.version} did not rate this reply, {rating.book_version} did")
