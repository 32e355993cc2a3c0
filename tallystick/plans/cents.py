"""One rounding for many lines: each counts for what the rounded total grows by with it.

Rounding every line by itself would make a total that is up to half a unit a line away from the
exact one, and lines that do not add up to a rounded total are an argument waiting to happen. Here
the running total is rounded, so the lines add up to it whatever their number, and it is never more
than half a unit from exact. The first line is rounded as it stands, which is why the line that
Stripe rounds by itself comes first.
"""

from collections.abc import Callable, Iterable
from fractions import Fraction
from math import floor

NANO_PER_CENT = 10_000_000


def in_cents(nano_usd: Iterable[int]) -> list[int]:
    """Return the cents of each line; together they are the total, rounded once, half up.

    Up, also below zero: a line of whole cents then counts for just them, whatever went before. So
    a base fee is on the statement what it is at Stripe.
    """
    return _running(map(Fraction, nano_usd), _half_up)


def in_nano(amounts: Iterable[Fraction]) -> list[int]:
    """Return the nano-USD of each amount; together they are the total, rounded once, half-even."""
    return _running(amounts, round)


def _half_up(nano_usd: Fraction) -> int:
    return floor(nano_usd / NANO_PER_CENT + Fraction(1, 2))


def _running(amounts: Iterable[Fraction], rounded: Callable[[Fraction], int]) -> list[int]:
    units: list[int] = []
    exact, counted = Fraction(0), 0
    for amount in amounts:
        exact += amount
        units.append(rounded(exact) - counted)
        counted = rounded(exact)
    return units
