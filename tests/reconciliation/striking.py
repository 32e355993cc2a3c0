"""What it takes to let something go wrong in a day's records and to say what has to be found.

A fault makes its own traffic in an hour of its own, does to it what its name says, and states the
rows that reconciliation has to find for it, the repairs that are tried, and how each row stands in
the end. What mends a meter depends on its age and on whether money hangs on it, so a fault is told
when the day will be looked at (`When`).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from tallystick.metering import CHARGE_METER, UNITS, token_meter
from tallystick.pricing import TokenCounts
from tallystick.reconciling.findings import Cause, Kind, Pair
from tests.reconciliation.world import (
    HOUR,
    MINUTE,
    SECOND,
    Asked,
    World,
)

INPUT, OUTPUT = token_meter("input"), token_meter("output")
METERS = (CHARGE_METER, INPUT, OUTPUT)
"""Of a plain request."""
PRICED, UNPRICED = "acme", "bolt"
"""The first has an account whose invoice collects its charges, the second one none yet."""
CUSTOMERS = (PRICED, UNPRICED)
"""Both use Claude in every hour in which something strikes. `idle` never does."""


class When(Enum):
    """When the day is looked at, from its end on."""

    SOON = timedelta(hours=1)
    """Stripe knows every identifier, and cancels events."""
    LATER = timedelta(days=2)
    """Stripe knows none of them, and takes events of that age."""
    OLD = timedelta(days=36)
    """Stripe takes nothing of that age."""
    CLOSED = timedelta(days=30)
    """The period is over, and what it came to invoiced; Stripe still takes events of that age."""


# --- What is expected -----------------------------------------------------------------------------
Repairs = tuple[tuple[str, str], ...]
"""What was tried, in order, each with its outcome."""
Mended = tuple[str, Repairs]
"""How a row stands in the end, and what was tried for it."""


@dataclass(frozen=True)
class Row:
    """A discrepancy that has to be found, and what becomes of it.

    `of` names the place: customer and unit, or a model. `differs` is for each unit what the record
    that the pair names first has more than the other, below zero where it has less. `state` is how
    it stands when nothing more can be done.
    """

    pair: Pair
    kind: Kind
    cause: Cause
    of: str
    start: datetime
    end: datetime
    differs: Mapping[str, int]
    state: str
    repairs: Repairs = ()


Remedy = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Expected:
    """What a fault leaves to be found. `remedy` is what a person does who was told of it.

    `lost` says of each call without an answer whether it turns out to have been served.
    `while_invoiced` and `afterwards` happen as the period's invoice becomes final, and then.
    """

    rows: Sequence[Row] = ()
    remedy: Remedy | None = None
    lost: Sequence[bool] = ()
    while_invoiced: Remedy | None = None
    afterwards: Remedy | None = None


NOTHING = Expected()


@dataclass(frozen=True)
class Strike:
    """When a fault strikes, and at whom; `seed` is the day's."""

    world: World
    at: datetime
    """A whole minute of an hour, in which nothing has happened before."""
    when: When
    customer: str
    meter: str
    seed: int

    @property
    def hour(self) -> datetime:
        return self.at.replace(minute=0)

    @property
    def other_customer(self) -> str:
        return UNPRICED if self.customer == PRICED else PRICED

    def later(self, seconds: float) -> datetime:
        return self.at + seconds * SECOND

    async def two(self, *, alike: bool = False) -> tuple[Asked, Asked]:
        """Ask twice in the minute; the first one's events are for the fault, none are sent yet."""
        # Answers of the stand-in are 40 tokens long at the least, unless they are cut.
        struck = {"tokens": 500 + self.seed, "max_tokens": 32}
        beside = struck if alike else {"tokens": 300, "max_tokens": 24}
        first = await self.world.ask(self.customer, self.later(5), **struck)
        return first, await self.world.ask(self.customer, self.later(20), **beside)

    async def send(
        self, struck: Asked, beside: Asked, fault: str, meter: str, **options: Any
    ) -> None:
        """Send the events of two requests, of the first one that of this meter to a Stripe that
        does this to it; all of them for no meter."""
        await self.world.send(beside)  # and the session of the stream is a fresh one
        identifier = struck.events[meter or CHARGE_METER].identifier
        options["identifier"] = identifier if meter else ""
        await self.world.stripe.fault(fault, match=identifier, **options)
        await self.world.send(struck)

    def counted(
        self,
        kind: Kind,
        cause: Cause,
        missing: int,
        mended: Mended,
        *,
        customer: str | None = None,
        meter: str | None = None,
        hourly: bool = False,
    ) -> Row:
        """Return the row of a meter's minute, or hour, that misses so much; below zero, that has
        so much too much."""
        unit = UNITS[meter or self.meter]
        of = f"{customer or self.customer} {unit}"
        start, length = (self.hour, HOUR) if hourly else (self.at, MINUTE)
        differs = {unit: missing}
        return Row(Pair.OUTBOX_STRIPE, kind, cause, of, start, start + length, differs, *mended)

    def waits(self, cause: Cause, waiting: int, **where: str) -> Row:
        """Return the row of a meter's hour of which so much is stuck in the outbox."""
        mended = ("open" if self.when is When.OLD else "settled", ())
        return self.counted(Kind.NOT_DELIVERED, cause, waiting, mended, hourly=True, **where)

    def told(
        self, kind: Kind, cause: Cause, model: str, more: TokenCounts, state: str, **changes: Any
    ) -> Row:
        """Return the row of a model's hour of which the usage report has so much more."""
        row = {
            "start": self.hour,
            "end": self.hour + HOUR,
            "differs": {str(kind): count for kind, count in more.by_kind().items() if count},
            **changes,
        }
        return Row(Pair.CLAUDE_LEDGER, kind, cause, model, state=state, **row)


Fault = Callable[[Strike], Awaitable[Expected]]


def value(asked: Asked, meter: str) -> int:
    return asked.events[meter].value
