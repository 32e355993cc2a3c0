"""Stripe's time windows: whether an event may be sent, must be looked up first, or is parked.

Stripe knows an identifier for 24 hours and takes no usage older than 35 days (facts on Stripe,
'Read this first' 2, and 'Meters'). Two rules follow, both with a margin. An event that was first
sent 23 hours ago is not sent again before the summaries have told what became of it. A first send
happens only while all of its resends still fall inside the 35 days. Timestamps are never moved to
make an event fit.

A third rule is ours. While the invoice of a closed period is not final, Stripe adds to it whatever
it is told of that period. Usage billed later than its period is collected by a later statement, so
Stripe may hear of it only once the invoice can no longer grow.

Pure functions of what is known; `metering.py` does what they say.
"""

from datetime import datetime, timedelta
from enum import Enum, auto

from activities.stripe_clients import Refusal
from tallystick.errors import (
    CUSTOMER_UNMAPPED,
    METER_HELD,
    METER_OUTCOME_UNKNOWN,
    METER_WINDOW_PASSED,
    STRIPE_REJECTED,
)
from tallystick.ledger.outbox import PendingEvent, WindowSums
from tallystick.metering import RESENT_FOR, SENT_FOR, TAKEN_FOR, resend_key
from tallystick.plans.periods import period_at

HELD_LOOK = timedelta(minutes=15)
"""How often a held event looks whether the invoice is final; that takes an hour or some days."""
MAX_VALUE = 10**15 - 1
"""Stripe would accept more digits, and drop the event later."""


class Step(Enum):
    """What is to be done with an event."""

    SEND = auto()
    LOOK_UP = auto()
    """Find out what Stripe counted in the event's minute."""
    DELIVERED = auto()
    WITHDRAWN = auto()
    """A statement collects its amount instead; Stripe is not to hear of it."""


def first_step(event: PendingEvent, now: datetime) -> Step | Refusal:
    """Decide by what the outbox knows."""
    if event.stripe_customer_id is None:
        return Refusal(
            CUSTOMER_UNMAPPED,
            f"customer {event.key.customer_id!r} has no Stripe customer; map it and retry",
        )
    if not 0 <= event.value <= MAX_VALUE:
        return Refusal(
            STRIPE_REJECTED, f"Stripe takes whole numbers of up to 15 digits, not {event.value}"
        )
    if event.first_sent_at is None and now - event.occurred_at >= SENT_FOR:
        return _passed(event)
    if is_held(event):
        return Refusal(
            METER_HELD,
            f"billed later than its period, whose invoice is not final yet; it could still grow "
            f"by this usage of {event.occurred_at.isoformat()}",
            HELD_LOOK.total_seconds(),
        )
    if event.first_sent_at is None:
        return Step.SEND
    return Step.SEND if now - event.first_sent_at < RESENT_FOR else Step.LOOK_UP


def is_held(event: PendingEvent) -> bool:
    """Tell whether Stripe would collect the event with a period that does not bill it."""
    books = event.books
    if books is None or not books.invoiced_until <= event.occurred_at < books.closed_until:
        return False
    _, period = period_at(books.anchor, books.time_zone, event.occurred_at)
    # An account's last period may end before its boundary, and then the books are closed there.
    return event.billed_at >= min(period.end, books.closed_until)


def step_after_look_up(
    event: PendingEvent, now: datetime, *, known: WindowSums, counted: int
) -> Step | Refusal:
    """Decide by what Stripe counted in the minute of an event first sent too long ago.

    Args:
        event: one that Stripe has not acknowledged.
        now: the present.
        known: what the outbox sent for that minute, acknowledged and not.
        counted: what Stripe's summary of that minute says.
    """
    age = now - event.occurred_at
    if counted == known.delivered + known.undelivered:
        return Step.DELIVERED
    if counted == known.delivered and age < SENT_FOR:
        return Step.SEND
    # Between the two bounds a resend may be on its way into the summaries: not known yet.
    if counted == known.delivered and age > TAKEN_FOR:
        return _passed(event)
    return Refusal(
        METER_OUTCOME_UNKNOWN,
        f"Stripe counted {counted} in the minute of {event.occurred_at.isoformat()} on "
        f"{event.meter}; acknowledged are {known.delivered}, unanswered {known.undelivered}",
    )


def idempotency_key(event: PendingEvent, now: datetime) -> str:
    """Return the key of one send: the identifier, which error reports then name.

    After a look-up it is another one each day, or Stripe would replay the answer to a send that
    is known to have had no effect.
    """
    if event.first_sent_at is None or now - event.first_sent_at < RESENT_FOR:
        return event.identifier
    return resend_key(event.identifier, (now - event.first_sent_at).days)


def _passed(event: PendingEvent) -> Refusal:
    return Refusal(
        METER_WINDOW_PASSED,
        f"used at {event.occurred_at.isoformat()}, and Stripe takes no usage older than "
        f"{TAKEN_FOR.days} days; it becomes an invoice item",
    )
