"""How prepaid credit is burnt, and which marks a balance or a limit has passed.

Credit lies in grants. A charge burns them one after the other: the lowest priority first, among
equals what expires first, then what was given first. A grant covers what was used before it
expires, to the instant. What no grant covers becomes overdraft, and the next credit repays that
before anything else; so while there is an overdraft no grant has anything left, and the balance is
one number with one sign.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

PRIORITY = {"promotional": 10, "paid": 20}
"""Of a grant that names none. Credit that was given away goes first: what the customer has paid for
is what may still be worth something when the account ends."""

ALERT_PERCENTS = (50, 80, 100)
"""Shares of an allowance, a cap or a balance that are told once a period each (requirement 69)."""

_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class OpenGrant:
    """A grant with something left, in nano-USD."""

    grant_id: int
    priority: int
    granted_at: datetime
    expires_at: datetime | None
    remaining_nano_usd: int

    def covers(self, at: datetime) -> bool:
        """Tell whether what is used at that instant may burn it."""
        return self.expires_at is None or at < self.expires_at


class Share(NamedTuple):
    """What one grant, or the overdraft (None), bears of an amount in nano-USD."""

    grant_id: int | None
    nano_usd: int


def split(grants: Collection[OpenGrant], nano_usd: int, used_at: datetime) -> list[Share]:
    """Split what was used at an instant over the grants that cover it, in the order they burn.

    The shares are positive and add up to the amount; the overdraft's, if any, comes last.
    """
    shares: list[Share] = []
    for grant in sorted((grant for grant in grants if grant.covers(used_at)), key=_order):
        if not nano_usd:
            break
        share = min(nano_usd, grant.remaining_nano_usd)
        shares.append(Share(grant.grant_id, share))
        nano_usd -= share
    if nano_usd:
        shares.append(Share(None, nano_usd))
    return shares


def _order(grant: OpenGrant) -> tuple[int, datetime, datetime, int]:
    return (grant.priority, grant.expires_at or _NEVER, grant.granted_at, grant.grant_id)


def percents_passed(used: int, limit: int) -> tuple[int, ...]:
    """Return which of `ALERT_PERCENTS` of a limit are used up; none of a limit of nothing."""
    return tuple(p for p in ALERT_PERCENTS if 0 < limit * p <= used * 100)
