"""Exact money: Decimal from the price list to the invoice, never a float.

A cost is kept unrounded. A charge is rounded once, half-even, to nano-USD, the whole-number unit
that Stripe is metered in (a Stripe price of 0.0000001 cents a unit), so the ledger and Stripe
count the same integers and can be compared without a tolerance. Rounding anywhere else would let
the three records drift apart by amounts nobody can explain.
"""

from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal, Inexact, localcontext
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

NANO_PER_USD = 1_000_000_000
_NANO = Decimal(1).scaleb(-9)

# Rates have at most 11 decimals and a request at most 10 digits of tokens; 60 digits leave no
# room for a silent rounding, and Inexact is trapped so that there could not be one.
EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN, traps=[Inexact])


class FloatMoneyError(TypeError):
    """A float was offered as money; the amount it meant is already lost."""


def usd(value: Decimal | int | str) -> Decimal:
    """Return `value` as an exact amount of US dollars.

    Raises:
        FloatMoneyError: for a float.
        ValueError: for text that is not a finite decimal number.
    """
    if isinstance(value, float):
        raise FloatMoneyError(f"money must be Decimal, int or text, never float: {value!r}")
    try:
        amount = Decimal(value)
    except ArithmeticError as error:
        raise ValueError(f"not an amount of money: {value!r}") from error
    if not amount.is_finite():
        raise ValueError(f"not an amount of money: {value!r}")
    return amount


def total(amounts: Iterable[Decimal]) -> Decimal:
    """Return the exact sum; raises decimal.Inexact rather than round."""
    with localcontext(EXACT):
        return sum(amounts, Decimal(0))


def times(quantity: int | Decimal, unit: Decimal) -> Decimal:
    """Return the exact product; raises decimal.Inexact rather than round."""
    with localcontext(EXACT):
        return Decimal(quantity) * unit


def to_nano_usd(amount: Decimal) -> int:
    """Round a charge, once, half-even, to whole nano-USD."""
    return int(amount.quantize(_NANO, rounding=ROUND_HALF_EVEN).scaleb(9))


def from_nano_usd(nano: int) -> Decimal:
    """Return whole nano-USD as dollars, exactly."""
    return Decimal(nano).scaleb(-9)


def plain(amount: Decimal) -> str:
    """Write an amount without exponent and without trailing zeros ('0.003', never '3E-3')."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _refuse_float(value: object) -> object:
    if isinstance(value, float):
        raise ValueError("money must be a decimal string, never a float")  # noqa: TRY004
    return value


Usd = Annotated[
    Decimal,
    BeforeValidator(_refuse_float),
    PlainSerializer(plain, return_type=str, when_used="json"),
]
"""An amount in a model: a decimal string on the wire, a Decimal in code, a float nowhere."""
