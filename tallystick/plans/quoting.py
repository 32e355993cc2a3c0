"""A quote in the customer's own money: what a request would be charged, before it is sent.

`tallystick.pricing.quote` bounds the cost; this puts the customer's terms over it. Where a plan
charges kinds of token differently, the bounds take the most and the least favourable kind, so that
the charge lies between them whatever the reply turns out to be (requirement 24).
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from tallystick.contracts import RequestQuote
from tallystick.money import from_nano_usd, times, to_nano_usd
from tallystick.plans.terms import PlanTerms
from tallystick.pricing import PriceBook, Quote, TokenKind, estimate_cost, pages, quote
from tallystick.pricing.explain import TOKENS_PER_PAGE, dollars

CACHEABLE_TOKENS = 1_024
"""Shorter prompts are not kept in the cache by most models, so nothing is said of it there."""
AT_COST = PlanTerms(model="pass-through")
"""The terms of a quote that is for nobody in particular: the provider's price."""


def quote_request(
    params: Mapping[str, Any],
    at: datetime,
    terms: PlanTerms = AT_COST,
    *,
    plan: str | None = None,
    counted: int | None = None,
    book: PriceBook | None = None,
) -> RequestQuote:
    """Quote a Messages API body.

    Args:
        params: the body, valid.
        at: when it would be served.
        terms: what the customer pays by.
        plan: the name of the plan that the terms are of.
        counted: Claude's own count of the prompt, where it was asked for.
        book: another book than the one that ships.

    Raises:
        NoPriceError: when the book has no price for this.
    """
    cost = quote(params, at, input_tokens=counted, book=book)
    uncached = estimate_cost(
        cost.model,
        cost.input_tokens.likely,
        0,
        at,
        inference_geo=params.get("inference_geo"),
        speed=params.get("speed"),
        book=book,
    )
    read, written = uncached - cost.cache_saves_usd, uncached + cost.cache_costs_usd

    def charged(amount: Decimal, factor: Decimal) -> Decimal:
        return from_nano_usd(to_nano_usd(times(factor, amount)))

    as_input = charged(uncached, terms.factor(TokenKind.INPUT))
    cheapest = min(terms.factor(kind) for kind in TokenKind)
    money = {
        "charge_low_usd": charged(cost.cost_low_usd, cheapest),
        "charge_high_usd": charged(cost.cost_high_usd, terms.highest_factor),
        "cache_saves_usd": as_input - charged(read, terms.factor(TokenKind.CACHE_READ)),
        "cache_costs_usd": charged(written, terms.factor(TokenKind.CACHE_WRITE_5M)) - as_input,
        "batch_saves_usd": charged(cost.batch_saves_usd or Decimal(0), terms.highest_factor),
    }
    return RequestQuote.model_validate(
        {
            **money,
            "batch_saves_usd": None if cost.batch_saves_usd is None else money["batch_saves_usd"],
            "model": cost.model,
            "plan": plan,
            "counted": counted is not None,
            "input_tokens_low": cost.input_tokens.low,
            "input_tokens_likely": cost.input_tokens.likely,
            "input_tokens_high": cost.input_tokens.high,
            "max_tokens": cost.max_tokens,
            "cost_low_usd": cost.cost_low_usd,
            "cost_high_usd": cost.cost_high_usd,
            "price_book": cost.book_version,
            "explanation": _in_words(cost, money, counted=counted is not None),
            "warnings": cost.warnings,
        }
    )


def _in_words(cost: Quote, money: Mapping[str, Decimal], *, counted: bool) -> str:
    told = {name: dollars(amount) for name, amount in money.items()}
    how = "by Claude's own count" if counted else "judged by its size"
    said = [
        f"The prompt, {how}, is {pages(cost.input_tokens.likely)}, and the answer may be up to "
        f"{pages(cost.max_tokens)} ({TOKENS_PER_PAGE} tokens a page).",
        f"Sent now, it would cost between {told['charge_low_usd']} and {told['charge_high_usd']}; "
        "longer answers cost more.",
    ]
    if cost.input_tokens.likely >= CACHEABLE_TOKENS and money["cache_saves_usd"] > 0:
        said.append(
            f"Each repeat of the prompt that is read from the cache would save about "
            f"{told['cache_saves_usd']}; keeping it there costs {told['cache_costs_usd']} extra "
            "the first time."
        )
    if money["batch_saves_usd"] > 0:
        said.append(f"In a batch it would cost up to {told['batch_saves_usd']} less.")
    return " ".join(said)
