"""What a comparison finds: the words in which two records are said to differ, in one place.

A finding names a place by its pair, interval and dimensions, never by its cause: the next look may
know the cause better, and has to meet the same row (`ledger.discrepancies`). What mends it is data,
decided here or beside here, and done by somebody else under a key of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any


class Pair(StrEnum):
    """Which two records are compared."""

    CLAUDE_LEDGER = "claude-ledger"
    """Anthropic's usage report and our usage records and attempts, in tokens."""
    COST_LEDGER = "cost-ledger"
    """Anthropic's cost report and what the price book makes of the usage, in dollars."""
    LEDGER_OUTBOX = "ledger-outbox"
    """Usage records and the meter events that they have to leave."""
    OUTBOX_STRIPE = "outbox-stripe"
    """Meter events that Stripe has acknowledged and what its summaries count."""


class Kind(StrEnum):
    """How they differ; the side named first in the pair is the one that is looked at."""

    UNRECORDED_USAGE = "unrecorded_usage"
    """Claude reports more than the ledger has."""
    UNREPORTED_USAGE = "unreported_usage"
    """Claude reports less than the ledger has."""
    MISPLACED_USAGE = "misplaced_usage"
    """As much, but in another hour or of another kind."""
    COST_DIFFERS = "cost_differs"
    EVENT_MISSING = "event_missing"
    """A record that has left no meter event."""
    EVENT_DIFFERS = "event_differs"
    """Meter events that do not add up to their records."""
    NOT_DELIVERED = "not_delivered"
    """Meter events that Stripe has not acknowledged for too long."""
    NOT_COUNTED = "not_counted"
    """Stripe counts less than it has acknowledged."""
    OVERCOUNTED = "overcounted"
    """Stripe counts more than it was sent."""


class Cause(StrEnum):
    """Why, as far as it can be told (requirement 57)."""

    LOST_CALL = "lost_call"
    """A call whose outcome nobody knew was served."""
    FAILED_REQUESTS = "failed_requests"
    REFUSALS = "refusals"
    """Refused before any output: free, and counted by one report but not by the other."""
    CACHING = "caching"
    """The same prompt tokens, told as another kind of cache write or read."""
    BUCKET_EDGE = "bucket_edge"
    """Served so near to the hour's edge that the report has it in the next one."""
    OUTSIDE_USAGE = "outside_usage"
    """Calls with the same key that did not go through Tallystick."""
    PRICE = "price"
    """The price book and Anthropic's list price are not the same."""
    LOST_RECORD = "lost_record"
    """A row is missing on our side."""
    STUCK_METERING = "stuck_metering"
    """It waits in the outbox, parked or retried."""
    REJECTED_LATER = "rejected_later"
    """Stripe took it and rejected it in an error report."""
    LOST_EVENT = "lost_event"
    """Stripe acknowledged it and does not count it."""
    COUNTED_TWICE = "counted_twice"
    WRONG_CUSTOMER = "wrong_customer"
    """Stripe counts it for another customer."""
    OUTSIDE_EVENT = "outside_event"
    """Stripe counts an event that the outbox does not know."""
    UNKNOWN = "unknown"


class RepairKind(StrEnum):
    """What can be done. Subjects are what it is done to, one row in `repairs` each."""

    SETTLE_ATTEMPTS = "settle_attempts"
    """Book what lost calls cost us. Subjects are attempt ids."""
    ENQUEUE_EVENTS = "enqueue_events"
    """Put missing meter events into the outbox. Subjects are identifiers."""
    RESEND = "resend"
    """Send meter events again, under the same identifier while Stripe knows it and under the next
    one after that. Subjects are identifiers."""
    CANCEL_EVENT = "cancel_event"
    """Have Stripe cancel an event within 24 hours of its receipt. Subjects are identifiers."""
    CORRECT_METER = "correct_meter"
    """Send an event that corrects what Stripe has counted of an open period. Subjects are
    identifiers of corrections."""
    COLLECT_LATER = "collect_later"
    """Collect, or give back, what a closed period's meter got wrong: a line of the next statement.
    One subject, the customer."""


AUTOMATIC = frozenset({RepairKind.SETTLE_ATTEMPTS, RepairKind.ENQUEUE_EVENTS, RepairKind.RESEND})
"""Safe without a person: they book our own cost, or Stripe's deduplication bounds them."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What would mend a finding. `subjects` maps each subject to what the repair has to know."""

    repair: RepairKind
    words: str
    subjects: Mapping[str, Mapping[str, Any]]
    automatic: bool

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "repair": str(self.repair),
            "words": self.words,
            "automatic": self.automatic,
            "subjects": {name: dict(facts) for name, facts in self.subjects.items()},
        }


@dataclass(frozen=True, slots=True)
class Finding:
    """One place where two records differ, over [start, end).

    `place` holds its dimensions by name; those without a value are left out. `amounts` is, for each
    unit that differs, what each side has: `{"input": {"claude": 120, "ledger": 100}}`. `tokens` is
    the difference of all token kinds, each taken positive; `usd` its worth, where that is known.
    `explained` says that nothing is to be done. `requests` are at most `MOST_REQUESTS`.
    """

    pair: Pair
    kind: Kind
    start: datetime
    end: datetime
    place: Mapping[str, str]
    amounts: Mapping[str, Mapping[str, int | str]]
    cause: Cause
    words: str
    tokens: int = 0
    usd: Decimal | None = None
    requests: Sequence[Mapping[str, Any]] = field(default=())
    proposal: Proposal | None = None
    explained: bool = False

    @property
    def customer_id(self) -> str | None:
        """The customer whose place it is, if it is one's."""
        return self.place.get("customer_id")

    @property
    def key(self) -> str:
        """What the place is known by for ever."""
        where = ",".join(f"{name}={value}" for name, value in sorted(self.place.items()))
        span = "/".join(f"{at.astimezone(UTC):%Y-%m-%dT%H:%MZ}" for at in (self.start, self.end))
        return f"{self.pair}:{self.kind}:{span}:{where}"


MOST_REQUESTS = 20
"""Requests that a finding names; their number is told in words."""
