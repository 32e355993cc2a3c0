"""Differences as a person reads them: dollars and pages first, tokens after them."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from tallystick.pricing import pages
from tallystick.pricing.explain import dollars
from tallystick.reconciling.findings import Cause, Pair, RepairKind

PAIRS: Mapping[Pair, str] = {
    Pair.CLAUDE_LEDGER: "Claude's usage report and the ledger",
    Pair.COST_LEDGER: "Claude's cost report and the price book",
    Pair.LEDGER_OUTBOX: "the ledger and its meter events",
    Pair.OUTBOX_STRIPE: "the meter events sent and what Stripe counts",
}
SHORT_PAIRS: Mapping[Pair, str] = {
    Pair.CLAUDE_LEDGER: "Claude, ledger",
    Pair.COST_LEDGER: "costs, prices",
    Pair.LEDGER_OUTBOX: "ledger, events",
    Pair.OUTBOX_STRIPE: "events, Stripe",
}
"""The same where there is no room."""
CAUSES: Mapping[Cause, str] = {
    Cause.LOST_CALL: "a lost call was served",
    Cause.FAILED_REQUESTS: "failed requests",
    Cause.REFUSALS: "refusals, which are free",
    Cause.CACHING: "cached otherwise than told",
    Cause.BUCKET_EDGE: "served at the edge of the hour",
    Cause.OUTSIDE_USAGE: "calls outside Tallystick",
    Cause.PRICE: "the price book differs",
    Cause.LOST_RECORD: "a row of ours is missing",
    Cause.STUCK_METERING: "metering is stuck",
    Cause.REJECTED_LATER: "Stripe rejected it later",
    Cause.LOST_EVENT: "Stripe lost an event",
    Cause.COUNTED_TWICE: "counted twice",
    Cause.WRONG_CUSTOMER: "counted for another customer",
    Cause.OUTSIDE_EVENT: "an event of somebody else's",
    Cause.UNKNOWN: "not known",
}
REPAIRS: Mapping[RepairKind, str] = {
    RepairKind.SETTLE_ATTEMPTS: "book the lost call as our cost",
    RepairKind.ENQUEUE_EVENTS: "put the event in the outbox",
    RepairKind.RESEND: "send the event again",
    RepairKind.CANCEL_EVENT: "have Stripe cancel the event",
    RepairKind.CORRECT_METER: "send an event that corrects the meter",
    RepairKind.COLLECT_LATER: "correct it on the next statement",
}
CLAUDE_STATES: Mapping[str, str] = {
    "compared": "Claude's reports were compared",
    "no_admin_key": (
        "Claude's reports were not read: ANTHROPIC_ADMIN_KEY is not set; the other records were "
        "compared all the same"
    ),
    "unsettled": (
        "Claude's reports could not be compared in the time there was; the next daily run looks "
        "again"
    ),
    "unavailable": "Claude's reports could not be read with this ANTHROPIC_ADMIN_KEY",
}
"""How the comparison with Anthropic's reports went, by the state of the run."""

_HOUR, _MINUTE, _DAY = timedelta(hours=1), timedelta(minutes=1), timedelta(days=1)


def how_much(tokens: int, usd: Decimal | None) -> str:
    """Say by how much two records differ: money and text, whatever of it is known."""
    said = [] if usd is None else [dollars(abs(usd))]
    if tokens:
        said.append(f"{pages(tokens)} ({tokens:,} tokens)")
    return ", ".join(said) or "an amount not known"


def when(start: datetime, end: datetime) -> str:
    """Say where on the clock: a day, an hour, a minute or a span, in UTC."""
    start, end = start.astimezone(UTC), end.astimezone(UTC)
    match end - start:
        case span if span == _DAY and (start.hour, start.minute) == (0, 0):
            return f"{start:%Y-%m-%d}"
        case span if span == _MINUTE:
            return f"{start:%Y-%m-%d %H:%M} UTC"
        case span if span == _HOUR:
            return f"{start:%Y-%m-%d %H:%M} to {end:%H:%M} UTC"
        case _:
            return f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"


def several(count: int, noun: str) -> str:
    """Return a number of things, of which there may be one."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
