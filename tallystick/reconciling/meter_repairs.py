"""What mends a minute in which Stripe counts otherwise than it was sent: by age, and by money.

While the invoice of that time is not final, the meter itself is put right: a lost event is sent
again, one that is counted twice is cancelled while Stripe still cancels, and anything else is
corrected by an event of its own. Once the invoice is final, or Stripe takes nothing of that age any
more, the meter moves no money and a statement has to. A meter without a price is put right while
that can be done, and let be afterwards: there is nothing to collect.

Sending a lost event again is safe without a person. While Stripe knows the identifier it counts
once; later it is known from the sums that it does not count, and the minute then has what it has to
have. The rest adds to a customer's bill, or takes from it, and waits for somebody's word.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tallystick.metering import (
    CANCELLED_FOR,
    SENT_FOR,
    correction_identifier,
    meter_identifier,
    repairs,
)
from tallystick.reconciling.findings import Cause, Proposal, RepairKind
from tallystick.reconciling.meter_minutes import Collects, Minute, SentEvent, in_utc, quantity


@dataclass(frozen=True, slots=True)
class Remedy:
    """What can be done, or, without a proposal, why nothing has to be."""

    words: str
    proposal: Proposal | None = None


def remedy(minute: Minute, cause: Cause, events: Sequence[SentEvent], now: datetime) -> Remedy:
    """Decide what mends the minute, the events being what its difference consists of, if known."""
    too_old = now - minute.at >= SENT_FOR
    if (words := _why_nothing(minute, events, too_old=too_old)) is not None:
        return Remedy(words)
    if too_old or minute.collects is Collects.FINAL_INVOICE:
        return _collect_later(minute)
    put_right = None
    if cause is Cause.LOST_EVENT:
        put_right = _resend(minute, events)
    elif minute.difference > 0:
        put_right = _cancel(minute, events, now)
    return put_right or _correct(minute, events)


def _why_nothing(minute: Minute, events: Sequence[SentEvent], *, too_old: bool) -> str | None:
    if minute.collects is Collects.NOTHING:
        much_later = "Stripe takes nothing of that age any more, and nobody is charged by it."
        return much_later if too_old else None
    if minute.booked_nano_usd == -minute.difference:
        return "A statement has a line that makes up for it."
    if minute.difference < 0 and events and all(event.on_statement for event in events):
        return "A line of a statement collects it, and not the meter."
    return None


def _resend(minute: Minute, events: Sequence[SentEvent]) -> Remedy | None:
    """Send the events again, under the same identifiers unless that was tried in vain."""
    subjects: dict[str, dict[str, Any]] = {}
    for event in events:
        names = repairs(event.identifier)
        later = names[names.index(event.identifier) :]
        name = next((n for n in later if (RepairKind.RESEND, n) not in minute.tried), None)
        if name is None:
            return None
        subjects[name] = _facts(minute, event) | {"identifier": name, "sent_as": event.identifier}
    same = all(name == facts["sent_as"] for name, facts in subjects.items())
    if same:
        words = "A resend under the same identifier is counted once."
    else:
        words = (
            "A resend under the same identifier was in vain; under the next one it is counted, and "
            "twice should the first one show after all."
        )
    return Remedy(words, Proposal(RepairKind.RESEND, words, subjects, automatic=same))


def _cancel(minute: Minute, events: Sequence[SentEvent], now: datetime) -> Remedy | None:
    """Have Stripe cancel the events, while it does; one cancellation takes one of two away."""
    can_be = all(
        now - event.first_sent_at < CANCELLED_FOR
        and (RepairKind.CANCEL_EVENT, event.identifier) not in minute.tried
        for event in events
    )
    if not events or not can_be:
        return None
    words = "Stripe can cancel what it counts too much."
    # It is taken from whom it is counted for, which need not be whom it was sent for.
    counted_for = {"stripe_customer_id": minute.stripe_customer_id}
    subjects = {event.identifier: _facts(minute, event) | counted_for for event in events}
    return Remedy(words, Proposal(RepairKind.CANCEL_EVENT, words, subjects, automatic=False))


def _correct(minute: Minute, events: Sequence[SentEvent]) -> Remedy:
    """Put the meter right by an event of its own, dated into the same minute."""
    named = f"minute {in_utc(minute.at)}"  # a request's id has no blank, so nothing else has it
    base = meter_identifier(minute.customer_id, named, minute.meter)
    number = 1
    while (RepairKind.CORRECT_METER, correction_identifier(base, number)) in minute.tried:
        number += 1
    identifier = correction_identifier(base, number)
    value = -minute.difference
    sign = "+" if value > 0 else "−"
    words = f"An event of {sign}{quantity(minute.meter, abs(value))} puts the meter right."
    facts = {
        "identifier": identifier,
        "meter": minute.meter,
        "value": value,
        "customer_id": minute.customer_id,
        "stripe_customer_id": minute.stripe_customer_id,
        "occurred_at": in_utc(minute.at),
        "first_sent_at": None,
        "corrects": [event.identifier for event in events],
    }
    proposal = Proposal(RepairKind.CORRECT_METER, words, {identifier: facts}, automatic=False)
    return Remedy(words, proposal)


def _collect_later(minute: Minute) -> Remedy:
    """Let the next statement collect, or give back, what the meter got wrong."""
    amount = -minute.difference - minute.booked_nano_usd
    verb = "collect" if amount > 0 else "give back"
    words = f"The next statement can {verb} {quantity(minute.meter, abs(amount))}."
    facts = {
        "amount_nano_usd": amount,
        "meter": minute.meter,
        "customer_id": minute.customer_id,
        "stripe_customer_id": minute.stripe_customer_id,
        "occurred_at": in_utc(minute.at),
    }
    subjects: Mapping[str, Mapping[str, Any]] = {minute.customer_id: facts}
    return Remedy(words, Proposal(RepairKind.COLLECT_LATER, words, subjects, automatic=False))


def _facts(minute: Minute, event: SentEvent) -> dict[str, Any]:
    """Return all that sending or cancelling an event has to know."""
    return {
        "identifier": event.identifier,
        "meter": minute.meter,
        "value": event.value,
        "customer_id": minute.customer_id,
        "stripe_customer_id": event.stripe_customer_id,
        "request_id": event.request_id,
        "occurred_at": in_utc(event.occurred_at),
        "first_sent_at": in_utc(event.first_sent_at),
    }
