"""Volume prices: what a charge comes to in the brackets of its plan.

A bracket reaches up to and with its limit, as Stripe's tiers do. Graduated tiers price each part of
the charge in its own bracket. Volume tiers price all of it in the bracket it reaches, so just above
a limit a larger charge can come to less: that is what such a plan promises. What is not a charge
(a credit that corrections have left) is no volume and stays as it is.
"""

from decimal import Decimal

from tallystick.money import times, total
from tallystick.plans.statement import TierPart
from tallystick.plans.terms import Bracket, Tiers


def in_tiers(charge_usd: Decimal, tiers: Tiers | None) -> tuple[TierPart, ...]:
    """Return the parts of a charge by bracket and what each comes to, exactly."""
    if tiers is None or charge_usd <= 0:
        return (_part(Bracket(factor=Decimal(1)), charge_usd),)
    if tiers.mode == "volume":
        return (_part(_reached(charge_usd, tiers), charge_usd),)
    parts: list[TierPart] = []
    below = Decimal(0)
    for bracket in tiers.brackets:
        up_to = charge_usd if bracket.up_to_usd is None else min(charge_usd, bracket.up_to_usd)
        parts.append(_part(bracket, up_to - below))
        below = up_to
        if below == charge_usd:
            break
    return tuple(parts)


def amount(parts: tuple[TierPart, ...]) -> Decimal:
    """Return what the parts come to together."""
    return total(part.amount_usd for part in parts)


def _reached(charge_usd: Decimal, tiers: Tiers) -> Bracket:
    return next(
        bracket
        for bracket in tiers.brackets
        if bracket.up_to_usd is None or charge_usd <= bracket.up_to_usd
    )


def _part(bracket: Bracket, charge_usd: Decimal) -> TierPart:
    return TierPart(
        up_to_usd=bracket.up_to_usd,
        factor=bracket.factor,
        charge_usd=charge_usd,
        amount_usd=times(bracket.factor, charge_usd),
    )
