"""One customer's minute on one meter, as both sides have it.

A minute is the least that Stripe sums up, and events go out dated by the second, so the events of a
minute can be named exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum, auto
from typing import Any

from tallystick.metering import CHARGE_METER, UNITS
from tallystick.money import from_nano_usd
from tallystick.pricing.explain import dollars
from tallystick.reconciling.narrowing import explaining

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


class Collects(Enum):
    """What collects the money for what a meter counts of some minute."""

    NOTHING = auto()
    """The meter has no price for this customer; it informs."""
    OPEN_INVOICE = auto()
    """An invoice that is not final: what the meter counts from now on is on it."""
    FINAL_INVOICE = auto()
    """An invoice that never changes again."""


@dataclass(frozen=True, slots=True)
class SentEvent:
    """A meter event that was sent. `value` is a count or whole nano-USD.

    `on_statement` says that a line of a statement collects it, whatever the meter counts.
    """

    identifier: str
    request_id: str
    value: int
    stripe_customer_id: str
    occurred_at: datetime
    first_sent_at: datetime
    acknowledged: bool
    on_statement: bool


@dataclass(frozen=True, slots=True)
class Minute:
    """The events that were sent for a minute, and what Stripe counts in it.

    `stripe_customer_id` is the customer's at Stripe, whom the events named; of several, the last.
    `fresh` says that some were sent so lately that Stripe may not show them yet.
    `tried` are the repairs (kind, subject) of this place that have had the time to show, and
    `booked_nano_usd` is what statements collect, or give back, in place of the meter.
    """

    customer_id: str
    stripe_customer_id: str
    meter: str
    at: datetime
    counted: int
    events: Sequence[SentEvent]
    collects: Collects
    fresh: bool = False
    tried: frozenset[tuple[str, str]] = frozenset()
    booked_nano_usd: int = 0

    @property
    def acknowledged(self) -> list[SentEvent]:
        """The events that Stripe has to count."""
        return [event for event in self.events if event.acknowledged]

    @property
    def expected(self) -> int:
        """What Stripe has to count."""
        return sum(event.value for event in self.acknowledged)

    @property
    def difference(self) -> int:
        """What Stripe counts too much; below zero, too little."""
        return self.counted - self.expected

    @property
    def agrees(self) -> bool:
        """Whether Stripe counts what it has acknowledged, and maybe some of what it has not.

        An event whose answer was lost may count or not, and is no difference either way.
        """
        unanswered = [event.value for event in self.events if not event.acknowledged]
        return self.difference in (0, sum(unanswered)) or bool(
            explaining(unanswered, self.difference)
        )


def quantity(meter: str, value: int) -> str:
    """Say how much of a meter's unit that is: `$0.12`, `1,200 cache read tokens`."""
    if meter == CHARGE_METER:
        return dollars(from_nano_usd(value))
    return f"{value:,} {UNITS[meter].replace('_', ' ')} tokens"


def tokens_of(meter: str, difference: int) -> int:
    """Return the difference in tokens, taken positive; money is none."""
    return 0 if meter == CHARGE_METER else abs(difference)


def usd_of(meter: str, difference: int) -> Decimal | None:
    """Return the difference in money, positive where somebody pays more; tokens have no price."""
    return from_nano_usd(difference) if meter == CHARGE_METER else None


def place_of(customer_id: str, meter: str) -> dict[str, str]:
    """Return the dimensions by which a finding about meter events names its place."""
    return {"customer_id": customer_id, "meter": meter}


def in_utc(at: datetime) -> str:
    """Return an instant as findings and proposals carry it."""
    return at.astimezone(UTC).isoformat()


def request_facts(
    customer_id: str, request_id: str, identifier: str, value: int, occurred_at: datetime
) -> dict[str, Any]:
    """Return what a finding says of an event that it was narrowed to."""
    return {
        "customer_id": customer_id,
        "request_id": request_id,
        "identifier": identifier,
        "value": value,
        "at": in_utc(occurred_at),
    }
