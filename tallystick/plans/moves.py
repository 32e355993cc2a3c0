"""Moves between plans: when one takes effect, and what it changes about how periods are counted.

Plans of one model settle alike, so a move between them takes effect at once, and the period is
settled in parts. Another model collects in another way, so such a move waits for the end of the
open period: what was used until then is collected in the old way, and no period is half of each
(requirement 53).
"""

from datetime import datetime
from typing import NamedTuple

from tallystick.plans.periods import billing_period
from tallystick.plans.terms import Model

UTC_NAME = "UTC"


class MoveRefusedError(ValueError):
    """There is nothing to move, or it would come too late; the message says which."""


class Place(NamedTuple):
    """A plan by name, and its model."""

    plan: str
    model: Model


def effective_from(
    now: datetime,
    current: Place,
    wanted: Place,
    *,
    to_come: str | None,
    period_end: datetime | None,
    ends_at: datetime | None,
) -> datetime:
    """Return the instant from which a move that is decided now takes effect.

    It replaces a move that is decided and still to come; a move to the plan that the customer is on
    leaves it there.

    Args:
        now: the instant of deciding.
        current: what the customer is on.
        wanted: what it is to be on.
        to_come: the plan of a move that is decided and has not taken effect.
        period_end: the end of the open period; None without an account.
        ends_at: when the account ends, if it does.

    Raises:
        MoveRefusedError: where the customer is or will be on that plan, or its account ends first.
    """
    if wanted.plan == (to_come or current.plan):
        raise MoveRefusedError(
            f"it moves to plan {wanted.plan!r} already"
            if to_come
            else f"it is on plan {wanted.plan!r} already"
        )
    at = now if wanted.model == current.model or period_end is None else period_end
    if ends_at is not None and ends_at <= at:
        raise MoveRefusedError(f"its account ends first, at {ends_at.isoformat()}")
    return at


def billing_zone(model: Model, time_zone: str) -> str:
    """Return the time zone that an account on a plan of this model counts its periods in.

    Stripe counts those of its subscriptions in UTC, so ours must be; an account without one is
    counted in the customer's own zone.
    """
    return time_zone if model == "prepaid" else UTC_NAME


def anchor_in_utc(boundary: datetime, ordinal: int) -> datetime:
    """Return an anchor by which, counted in UTC, a period of the number `ordinal` begins then.

    The anchor has to lie in a month that has the boundary's day, or later months would be clamped
    to another; where the month `ordinal` asks for is too short it is the one before, and the number
    is one higher. Numbers only have to ascend.
    """
    anchor = billing_period(boundary, UTC_NAME, 2 - ordinal).start
    if anchor.day == boundary.day:
        return anchor
    return billing_period(boundary, UTC_NAME, 1 - ordinal).start
