"""Prices: the price book, and what a reply, a request or a saving comes to. Only computes.

`rate` prices a reply from its own usage; `quote` says beforehand what a request may cost; `explain`
puts a rating in words. README.md in this folder holds the terms and the rules for changing data.
"""

from tallystick.pricing.book import BookError, NoPriceError, PriceBook, PriceRow, price_book
from tallystick.pricing.estimate import (
    Estimate,
    Quote,
    cliff_warnings,
    dearest_input_kind,
    estimate_cost,
    estimate_input_tokens,
    prompt_chars,
    quote,
)
from tallystick.pricing.evidence import evidence
from tallystick.pricing.explain import explain, pages
from tallystick.pricing.external import rate_line, rate_text
from tallystick.pricing.rating import Rating, rate
from tallystick.pricing.savings import batch_savings, cache_savings
from tallystick.pricing.tokens import TOKEN_KINDS, TokenCounts, TokenKind

__all__ = [
    "TOKEN_KINDS",
    "BookError",
    "Estimate",
    "NoPriceError",
    "PriceBook",
    "PriceRow",
    "Quote",
    "Rating",
    "TokenCounts",
    "TokenKind",
    "batch_savings",
    "cache_savings",
    "cliff_warnings",
    "dearest_input_kind",
    "estimate_cost",
    "estimate_input_tokens",
    "evidence",
    "explain",
    "pages",
    "price_book",
    "prompt_chars",
    "quote",
    "rate",
    "rate_line",
    "rate_text",
]
