"""What a base fee includes: how much of a period's charge the allowance lets off.

An allowance of money lets off the first dollars of the charge. One of tokens lets off the share of
a kind's charge that the included tokens are of those used, at most all of it. Everything that the
period bills counts, late usage and corrections too, so that no usage escapes and none counts twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from tallystick.money import from_nano_usd
from tallystick.plans.billed import Used
from tallystick.plans.cents import in_nano
from tallystick.plans.statement import AllowanceUse, TokensIncluded
from tallystick.pricing.tokens import TokenKind


@dataclass(frozen=True, slots=True)
class Included:
    """What the terms of a period include, prorated; both kinds where the plan has changed."""

    nano_usd: int = 0
    tokens: Mapping[TokenKind, int] = field(default_factory=dict[TokenKind, int])


def use_allowance(
    included: Included, used: Mapping[TokenKind, Used], charge_nano_usd: int
) -> AllowanceUse:
    """Take the allowance off a period's charge, tokens first.

    Args:
        included: what is included in the period.
        used: what was used by kind, with its exact charge.
        charge_nano_usd: what all of it was charged, the roundings of single records included.
    """
    covered = dict(zip(used, _covered(included, used, charge_nano_usd), strict=True))
    left = charge_nano_usd - sum(covered.values())
    money = min(included.nano_usd, max(left, 0))
    return AllowanceUse(
        included_usd=from_nano_usd(included.nano_usd) if included.nano_usd else None,
        left_usd=from_nano_usd(included.nano_usd - money) if included.nano_usd else None,
        tokens=tuple(
            TokensIncluded(
                kind=kind,
                included=quantity,
                used=used[kind].quantity if kind in used else 0,
                covered_usd=from_nano_usd(covered.get(kind, 0)),
            )
            for kind, quantity in included.tokens.items()
        ),
        covered_usd=from_nano_usd(charge_nano_usd - left + money),
        overage_usd=from_nano_usd(left - money),
    )


def _covered(included: Included, used: Mapping[TokenKind, Used], charge_nano_usd: int) -> list[int]:
    # The roundings of records go with the charges they belong to, or an allowance that covers
    # everything would leave the customer some nano-USD to pay.
    charges = [max(each.charge, Fraction(0)) for each in used.values()]
    rounding = charge_nano_usd - sum((each.charge for each in used.values()), Fraction(0))
    with_rounding = 1 + rounding / (sum(charges) or 1)
    return in_nano(
        with_rounding * charge * _share(included.tokens.get(kind, 0), each.quantity)
        for (kind, each), charge in zip(used.items(), charges, strict=True)
    )


def _share(included: int, used: int) -> Fraction:
    if not included:
        return Fraction(0)
    return Fraction(1) if used <= included else Fraction(included, used)
