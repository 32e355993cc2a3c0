"""Usage records and the meter events that they have to leave: what is missing, and what is wrong.

A priced record leaves an event for each meter that it moves, and so does the first price of one
that had none; the records of a batch leave one set for each chunk of its results. A missing event
follows from the record alone, its identifier included, so it can be put into the outbox as it was
meant to be. Where events say something else than their records, somebody has to look.

A row that is gone may have been sent before it went. While Stripe would know the identifier, it can
be sent again without a person.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tallystick.metering import RESENT_FOR, SENT_FOR, UNITS, meter_identifier
from tallystick.reconciling.findings import (
    MOST_REQUESTS,
    Cause,
    Finding,
    Kind,
    Pair,
    Proposal,
    RepairKind,
)
from tallystick.reconciling.meter_minutes import (
    MINUTE,
    in_utc,
    place_of,
    quantity,
    request_facts,
    tokens_of,
    usd_of,
)


@dataclass(frozen=True, slots=True)
class RecordGap:
    """A record, or a chunk of a batch's, whose event on a meter is not what it has to be.

    `owed` is what the meter has to be told and `told` what its event says, None where there is no
    event. `usage_record_id` is None for a chunk, whose `request_id` is that of its events.
    """

    customer_id: str
    request_id: str
    usage_record_id: int | None
    meter: str
    owed: int
    told: int | None
    occurred_at: datetime
    billed_at: datetime

    @property
    def identifier(self) -> str:
        """That of its one event."""
        return meter_identifier(self.customer_id, self.request_id, self.meter)

    @property
    def kind(self) -> Kind:
        """Whether the event is missing or another."""
        return Kind.EVENT_MISSING if self.told is None else Kind.EVENT_DIFFERS


def judge_records(gaps: Sequence[RecordGap], now: datetime) -> list[Finding]:
    """Return a finding for each minute, customer and meter with gaps of a kind."""
    places: defaultdict[tuple[str, str, datetime, Kind], list[RecordGap]] = defaultdict(list)
    for gap in gaps:
        minute = gap.occurred_at.replace(second=0, microsecond=0)
        places[gap.customer_id, gap.meter, minute, gap.kind].append(gap)
    return [_finding(at, kind, found, now) for (_, _, at, kind), found in places.items()]


def _finding(at: datetime, kind: Kind, gaps: Sequence[RecordGap], now: datetime) -> Finding:
    customer_id, meter = gaps[0].customer_id, gaps[0].meter
    owed, told = sum(gap.owed for gap in gaps), sum(gap.told or 0 for gap in gaps)
    records = "A record" if len(gaps) == 1 else f"{len(gaps)} records"
    proposal = None
    if kind is Kind.EVENT_MISSING:
        said = f"{records} of {customer_id} left no meter event for {quantity(meter, owed)}."
        if now - at < SENT_FOR:
            proposal = _enqueue(gaps, now)
            then = proposal.words
        else:
            then = "Stripe takes nothing of that age any more."
    else:
        said = (
            f"{records} of {customer_id} came to {quantity(meter, owed)}, and the meter events say "
            f"{quantity(meter, told)}."
        )
        then = "Which of the two is right cannot be told."
    return Finding(
        pair=Pair.LEDGER_OUTBOX,
        kind=kind,
        start=at,
        end=at + MINUTE,
        place=place_of(customer_id, meter),
        amounts={UNITS[meter]: {"ledger": owed, "outbox": told}},
        tokens=tokens_of(meter, told - owed),
        usd=usd_of(meter, told - owed),
        cause=Cause.LOST_RECORD if kind is Kind.EVENT_MISSING else Cause.UNKNOWN,
        words=f"{said} {then}",
        requests=[
            request_facts(customer_id, gap.request_id, gap.identifier, gap.owed, gap.occurred_at)
            for gap in gaps[:MOST_REQUESTS]
        ],
        proposal=proposal,
    )


def _enqueue(gaps: Sequence[RecordGap], now: datetime) -> Proposal:
    """Put the missing events into the outbox, which delivers them."""
    subjects = {
        gap.identifier: {
            "identifier": gap.identifier,
            "meter": gap.meter,
            "value": gap.owed,
            "customer_id": gap.customer_id,
            "request_id": gap.request_id,
            "usage_record_id": gap.usage_record_id,
            "occurred_at": in_utc(gap.occurred_at),
            "billed_at": in_utc(gap.billed_at),
            "first_sent_at": None,
        }
        for gap in gaps
    }
    # The oldest it can have been sent is when it was used.
    safe = all(now - gap.occurred_at < RESENT_FOR for gap in gaps)
    words = "What is missing follows from the record and can be put into the outbox."
    if not safe:
        words += " Stripe may have been told of it before it was lost; look at its sums first."
    return Proposal(RepairKind.ENQUEUE_EVENTS, words, subjects, automatic=safe)
