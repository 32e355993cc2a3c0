"""The faults that this Stripe has; how they are armed is told in `tallystick.sandbox.faults`.

A rule's `match` is looked for in `METHOD /path?query`, a line break, and the raw body.
"""

from typing import ClassVar

from pydantic import Field

from tallystick.sandbox.faults import Fault


class StripeFault(Fault):
    """Base of these; `paths` are the endpoints it can hit, all when empty."""

    paths: ClassVar[tuple[str, ...]] = ()

    def fits(self, path: str) -> bool:
        """Say whether a call of this endpoint can meet the fault."""
        return not self.paths or path in self.paths


_SINGLE = ("/v1/billing/meter_events", "/v2/billing/meter_events")
_EVERY_WAY = (*_SINGLE, "/v2/billing/meter_event_stream")


class RateLimited(StripeFault):
    """429 before any work; without a reason it reads as a lock timeout."""

    name: ClassVar[str] = "rate_limited"

    retry_after: float | None = None
    reason: str | None = "global-rate"


class ServerError(StripeFault):
    """500 before any work. v1 keeps it under the idempotency key, and replays it for a day."""

    name: ClassVar[str] = "server_error"


class Unavailable(StripeFault):
    """503 with an HTML body, from something in front of the API."""

    name: ClassVar[str] = "unavailable"


class Refused(StripeFault):
    """An error answer of choice before any work."""

    name: ClassVar[str] = "refused"

    status: int = Field(default=400, ge=400, lt=500)
    code: str | None = None
    message: str = "Refused on demand."


class NoAnswer(StripeFault):
    """The work is done and counted, then the connection is reset."""

    name: ClassVar[str] = "no_answer"


class Reset(StripeFault):
    """The connection is reset before any work."""

    name: ClassVar[str] = "reset"


class Slow(StripeFault):
    """The work begins late."""

    name: ClassVar[str] = "slow"

    seconds: float = Field(default=1.0, ge=0)


class EventFault(StripeFault):
    """Base of what becomes of single meter events after their receipt, on every way they can come.

    Only those are hit whose identifier contains `identifier`; of a stream's call, each that does.
    """

    paths: ClassVar[tuple[str, ...]] = _EVERY_WAY

    identifier: str = ""

    def hits(self, identifier: str) -> bool:
        """Say whether the event of this identifier meets it."""
        return self.identifier in identifier


class RejectedLater(EventFault):
    """Meter events are accepted and end in an error report."""

    name: ClassVar[str] = "rejected_later"

    code: str = "meter_event_customer_not_found"


class LostEvent(EventFault):
    """Meter events are accepted and never count; no report says so."""

    name: ClassVar[str] = "lost_event"


class CountedTwice(EventFault):
    """Meter events enter twice; a cancellation takes one of the two away."""

    name: ClassVar[str] = "counted_twice"


class WrongCustomer(EventFault):
    """Meter events count for `customer` instead; without one, for nobody."""

    name: ClassVar[str] = "wrong_customer"

    customer: str | None = None


class DuplicateReported(StripeFault):
    """A single meter event counts, and the answer calls it a duplicate: a proxy sent it twice."""

    name: ClassVar[str] = "duplicate_reported"
    paths: ClassVar[tuple[str, ...]] = _SINGLE


KINDS: tuple[type[StripeFault], ...] = (
    RateLimited,
    ServerError,
    Unavailable,
    Refused,
    NoAnswer,
    Reset,
    Slow,
    RejectedLater,
    LostEvent,
    CountedTwice,
    WrongCustomer,
    DuplicateReported,
)
