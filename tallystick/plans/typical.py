"""What ordinary lengths cost on a customer's own plan, in cents (requirement 66).

A page means something to the person who pays, and a cent does; a price per million tokens before
markups and discounts does not.
"""

from datetime import datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal

from tallystick.money import plain, times
from tallystick.plans.terms import PlanTerms
from tallystick.pricing import NoPriceError, PriceBook, TokenKind, estimate_cost
from tallystick.pricing.explain import TOKENS_PER_PAGE

_READABLE = Context(prec=2, rounding=ROUND_HALF_EVEN)


def typical_costs(
    model: str, at: datetime, terms: PlanTerms, *, book: PriceBook | None = None
) -> str:
    """Say what a page of prompt and of answer costs; nothing where the book has no price."""
    try:
        prompt = estimate_cost(model, TOKENS_PER_PAGE, 0, at, book=book)
        answer = estimate_cost(model, 0, TOKENS_PER_PAGE, at, book=book)
    except NoPriceError:
        return ""
    return (
        f"On your plan an ordinary page costs about {_cents(prompt, terms, TokenKind.INPUT)} in a "
        f"prompt and about {_cents(answer, terms, TokenKind.OUTPUT)} in an answer with {model}."
    )


def _cents(cost: Decimal, terms: PlanTerms, kind: TokenKind) -> str:
    cents = _READABLE.plus(100 * times(terms.factor(kind), cost))
    return "1 cent" if cents == 1 else f"{plain(cents)} cents"
