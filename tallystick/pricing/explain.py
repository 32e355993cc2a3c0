"""A rating in plain words, for the person who pays for it (requirements 66 and 68).

Tokens mean nothing to most people, so lengths are told in pages, and what moved the price is said
beside it: the answer's length, the cache, the batch price, searches. Amounts here are rounded for
reading; the lines of the bill are the exact ones.
"""

from decimal import ROUND_HALF_EVEN, Context, Decimal

from tallystick.money import plain, total
from tallystick.pricing.book import PriceBook
from tallystick.pricing.rating import Rating
from tallystick.pricing.savings import batch_savings, cache_savings
from tallystick.pricing.tokens import TokenCounts, TokenKind

TOKENS_PER_PAGE = 250
_READABLE = Context(prec=2, rounding=ROUND_HALF_EVEN)
_CENT = Decimal("0.01")
_TEN_CENTS = Decimal("0.1")


def explain(rating: Rating, *, book: PriceBook | None = None) -> str:
    """Explain a rating to a customer."""
    if rating.status == "not_billed":
        return f"Not billed: {rating.reason}."
    if rating.cost_usd is None:
        return f"Not priced yet: {rating.reason}."
    return priced_in_words(
        rating.tokens,
        cost_usd=rating.cost_usd,
        answer_usd=_part(rating, TokenKind.OUTPUT),
        searches_usd=_part(rating, TokenKind.WEB_SEARCH),
        cache_saved_usd=cache_savings(rating, book=book),
        batch_saved_usd=batch_savings(rating, book=book),
        partial=rating.partial,
    )


def priced_in_words(
    tokens: TokenCounts,
    *,
    cost_usd: Decimal,
    answer_usd: Decimal,
    searches_usd: Decimal,
    cache_saved_usd: Decimal,
    batch_saved_usd: Decimal,
    partial: bool,
) -> str:
    """Explain a price from its parts; where nothing was saved, zero."""
    said = [
        f"The prompt was {pages(tokens.prompt)} and the answer {pages(tokens.output)} "
        f"({TOKENS_PER_PAGE} tokens a page)."
    ]
    if cost_usd and answer_usd:
        share = round(100 * answer_usd / cost_usd)
        said.append(f"Longer responses cost more: the answer made up {share} % of the price.")
    if cache_saved_usd > 0:
        said.append(f"Caching saved {dollars(cache_saved_usd)}.")
    elif cache_saved_usd < 0:
        said.append(
            f"Keeping the prompt in the cache cost {dollars(-cache_saved_usd)} more; "
            "reading it saves."
        )
    if batch_saved_usd:
        said.append(f"The batch price saved {dollars(batch_saved_usd)}.")
    if tokens.web_search:
        searches = (
            "1 web search" if tokens.web_search == 1 else f"{tokens.web_search:,} web searches"
        )
        said.append(f"{searches} cost {dollars(searches_usd)}.")
    if partial:
        said.append(
            "The answer stopped at a length limit, so it is partial; it is billed as served."
        )
    return " ".join(said)


def pages(tokens: int) -> str:
    """Return a length in words, at 250 tokens a page."""
    if tokens == 0:
        return "empty"
    if tokens < TOKENS_PER_PAGE:
        return "less than a page of text"
    count = (2 * tokens + TOKENS_PER_PAGE) // (2 * TOKENS_PER_PAGE)
    return "about 1 page of text" if count == 1 else f"about {count:,} pages of text"


def dollars(amount: Decimal) -> str:
    """Write an amount for reading: cents, or two digits of what is below ten of them."""
    sign, size = ("-", -amount) if amount < 0 else ("", amount)
    if size >= _TEN_CENTS:
        return f"{sign}${size.quantize(_CENT, rounding=ROUND_HALF_EVEN):,}"
    return f"{sign}${plain(_READABLE.plus(size))}"


def _part(rating: Rating, kind: TokenKind) -> Decimal:
    return total(line.amount_usd for line in rating.lines if line.kind == kind)
