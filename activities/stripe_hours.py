"""Asking Stripe for every hour of every customer and meter, and noting how far that has come.

One question gives up to four days of a customer's meter by the hour, and nobody is asked about to
whom nothing was sent. The progress goes with each heartbeat, so a worker that takes over asks for
what is left. One customer's trouble stops no other: if it passes by itself that customer is asked
about again at the next try, and if not it is told in words.
"""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, ConfigDict
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.failures import failure
from activities.stripe_clients import Refusal
from activities.stripe_counts import StripeCounts, everybodys, passes
from tallystick.ledger.outbox_sums import MeterHours
from tallystick.ledger.reconciliation_tables import Discrepancy
from tallystick.metering import UNITS
from tallystick.reconciling.meter_minutes import HOUR
from tallystick.reconciling.narrowing import differing

TOGETHER = 64
"""Customers' meters between two notes of the progress: what a killed worker's successor asks again
at the most, two or three seconds of questions."""
ASKED_FOR = timedelta(hours=96)
"""Hours in one question: whole days, and fewer than the 100 sums of one answer."""
MOST_TRIES = 5
"""Tries of the step for customers in a trouble of their own that passes; then it goes on without
them, and the next run asks again."""

MOST_TOLD = 2_000
"""Places in one heartbeat, each some 200 bytes; Temporal takes 2 MB."""


class Place(BaseModel):
    """A span of one customer's time on one meter."""

    model_config = ConfigDict(frozen=True)

    customer_id: str
    meter: str
    start: datetime
    end: datetime

    @classmethod
    def of(cls, row: Discrepancy) -> "Place":
        """Return where a discrepancy of meter events is."""
        return cls(
            customer_id=row.place["customer_id"],
            meter=row.place["meter"],
            start=row.start_at,
            end=row.end_at,
        )

    @property
    def key(self) -> tuple[str, str]:
        """The customer and the meter."""
        return (self.customer_id, self.meter)

    def covers(self, other: "Place") -> bool:
        """Tell whether the other one begins in it."""
        return self.key == other.key and self.start <= other.start < self.end


class DifferingHour(BaseModel):
    """An hour in which Stripe counts otherwise than it was sent."""

    customer_id: str
    stripe_customer_ids: tuple[str, ...]
    meter: str
    hour: datetime
    expected: int
    counted: int

    @property
    def place(self) -> Place:
        """Where it is."""
        return Place(
            customer_id=self.customer_id,
            meter=self.meter,
            start=self.hour,
            end=self.hour + HOUR,
        )


class Progress(BaseModel):
    """How far the questions of [start, end) have come, and what the answers were.

    Everything up to `after` (customer, meter) was asked, save `left`. `counted` are Stripe's sums
    by unit and hour (Unix seconds), `unjudged` the places of which nothing can be said yet, and
    `unknown` why of some nothing will be.
    """

    start: datetime
    end: datetime
    after: tuple[str, str] | None = None
    left: list[tuple[str, str]] = []
    answered: int = 0
    calls: int = 0
    counted: dict[str, dict[int, int]] = {}
    differing: list[DifferingHour] = []
    unjudged: list[Place] = []
    unknown: list[str] = []

    def to_tell(self) -> "Progress | None":
        """Return what a heartbeat carries; nothing where so much differs that it would not fit."""
        return self if len(self.differing) + len(self.unjudged) <= MOST_TOLD else None

    def not_asked(self, meters: Sequence[MeterHours]) -> list[MeterHours]:
        """Return what was not asked about yet, in order."""
        ordered = sorted(meters, key=_key)
        return [each for each in ordered if self.after is None or _key(each) > self.after]

    def not_answered(self, meters: Sequence[MeterHours]) -> list[MeterHours]:
        """Return what was left, in order."""
        return sorted((each for each in meters if _key(each) in self.left), key=_key)

    def note(self, meter: MeterHours, answer: dict[datetime, int] | Refusal) -> None:
        """Note what Stripe has answered to the question about this meter."""
        key = _key(meter)
        self.after = key if self.after is None else max(self.after, key)
        if isinstance(answer, Refusal) and passes(answer):
            self.left = sorted({*self.left, key})
            return
        self.left = [each for each in self.left if each != key]
        self.answered += 1
        if isinstance(answer, Refusal):
            self.give_up(key, f"{answer.message} (customer {meter.customer_id})")
        else:
            self._compare(meter, {int(at.timestamp()): value for at, value in answer.items()})

    def give_up(self, key: tuple[str, str], why: str) -> None:
        """Note that nothing can be said of a customer's meter."""
        self.left = [each for each in self.left if each != key]
        self.unknown.append(why)
        self.unjudged.append(
            Place(customer_id=key[0], meter=key[1], start=self.start, end=self.end)
        )

    def _compare(self, meter: MeterHours, counted: dict[int, int]) -> None:
        of_unit = self.counted.setdefault(UNITS[meter.meter], {})
        for at, value in counted.items():
            of_unit[at] = of_unit.get(at, 0) + value
        sent: dict[int, int] = {}
        for at, value in zip(meter.hours, meter.sent, strict=True):
            sent[at] = sent.get(at, 0) + value
        fresh = {at for at, lately in zip(meter.hours, meter.fresh, strict=True) if lately}
        for at in differing(sent, counted):
            hour = DifferingHour(
                customer_id=meter.customer_id,
                stripe_customer_ids=meter.stripe_customer_ids,
                meter=meter.meter,
                hour=datetime.fromtimestamp(at, UTC),
                expected=sent.get(at, 0),
                counted=counted.get(at, 0),
            )
            if at in fresh:
                self.unjudged.append(hour.place)
            else:
                self.differing.append(hour)


def _key(meter: MeterHours) -> tuple[str, str]:
    return (meter.customer_id, meter.meter)


async def ask_for_hours(
    counts: StripeCounts, meters: Sequence[MeterHours], progress: Progress, tries: int
) -> None:
    """Ask for what is left, and note each answer.

    Args:
        counts: the way to Stripe.
        meters: all that was sent.
        progress: is kept up to date, and told with heartbeats.
        tries: which try of the step this is, from 1.

    Raises:
        ApplicationError: a row of the error table, to be tried again from where it has come to.
    """
    for group in _groups(progress.not_asked(meters)):
        refused = await _ask_group(counts, group, progress)
        if len(refused) == len(group):
            raise _failed(refused[0])  # nobody was answered: Stripe is away
    passing: list[Refusal] = []
    for group in _groups(progress.not_answered(meters)):
        passing += await _ask_group(counts, group, progress)
    if passing and (tries < MOST_TRIES or not progress.answered):
        raise _failed(passing[0])
    for key in progress.left:
        progress.give_up(key, f"Stripe did not answer about customer {key[0]}")


def _groups(meters: Sequence[MeterHours]) -> Iterator[Sequence[MeterHours]]:
    for first in range(0, len(meters), TOGETHER):
        yield meters[first : first + TOGETHER]


async def _ask_group(
    counts: StripeCounts, group: Sequence[MeterHours], progress: Progress
) -> list[Refusal]:
    """Ask about all of the group; returns the refusals that pass by themselves."""
    answers = await asyncio.gather(*(_ask(counts, each, progress) for each in group))
    for meter, answer in zip(group, answers, strict=True):
        progress.note(meter, answer)
    progress.calls = counts.calls
    activity.heartbeat(progress.to_tell())
    refused = [answer for answer in answers if isinstance(answer, Refusal)]
    if (trouble := everybodys(refused)) is not None:
        raise _failed(trouble)
    return [each for each in refused if passes(each)]


async def _ask(
    counts: StripeCounts, meter: MeterHours, progress: Progress
) -> dict[datetime, int] | Refusal:
    counted: dict[datetime, int] = {}
    for start, end in _spans(progress.start, progress.end):
        if any(start.timestamp() <= at < end.timestamp() for at in meter.hours):
            found = await counts.hours(meter.stripe_customer_ids, meter.meter, start, end)
            if isinstance(found, Refusal):
                return found
            counted |= found
    return counted


def _spans(start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    while start < end:
        yield start, min(start + ASKED_FOR, end)
        start += ASKED_FOR


def _failed(refused: Refusal) -> ApplicationError:
    return failure(refused.row, refused.message, retry_after=refused.retry_after)
