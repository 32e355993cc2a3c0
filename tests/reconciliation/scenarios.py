"""The catalogue of what can go wrong with a day's records, and fifty days on which some of it does.

A fault makes its own traffic in an hour of its own, does to it what its name says, and states the
rows that reconciliation has to find for it, the repairs that are tried, and how each row stands in
the end. Nothing else may be found: requests that nothing is wrong with go on beside it, in the same
minute, in the same hour, by the same customers.

What mends a meter depends on its age and on whether money hangs on it, so a fault is told when the
day will be looked at (`When`).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from random import Random
from typing import Any

from tallystick.metering import CHARGE_METER, UNITS, token_meter
from tallystick.pricing import TokenCounts
from tallystick.reconciling.findings import Cause, Kind, Pair
from tests.reconciliation.world import (
    DAY,
    HAIKU,
    HOUR,
    MINUTE,
    NEXT_DAY,
    SECOND,
    SONNET,
    Asked,
    World,
)

INPUT, OUTPUT = token_meter("input"), token_meter("output")
METERS = (CHARGE_METER, INPUT, OUTPUT)
"""Of a plain request."""
PRICED, UNPRICED = "acme", "bolt"
"""The first has an account whose invoice collects its charges, the second one none yet."""
CUSTOMERS = (PRICED, UNPRICED)
"""Both use Claude in every hour. `idle` never does."""
HOURS = (3, 9, 15)
"""In each of them one fault strikes."""
FOREIGN = 10**9
"""More than any sum of ours, so that no set of events explains it."""


class When(Enum):
    """When the day is looked at, from its end on."""

    SOON = timedelta(hours=1)
    """Stripe knows every identifier, and cancels events."""
    LATER = timedelta(days=2)
    """Stripe knows none of them, and takes events of that age."""
    OLD = timedelta(days=36)
    """Stripe takes nothing of that age."""


# --- What is expected -----------------------------------------------------------------------------
Repairs = tuple[tuple[str, str], ...]
"""What was tried, in order, each with its outcome."""


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
    """What a fault leaves to be found. `remedy` is what a person does who was told of it."""

    rows: Sequence[Row] = ()
    remedy: Remedy | None = None


NOTHING = Expected()


@dataclass(frozen=True)
class Strike:
    """Where and when a fault strikes; draws the same customer and meter each time it is asked."""

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
    def unit(self) -> str:
        return UNITS[self.meter]

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
        mended: tuple[str, Repairs],
        *,
        customer: str | None = None,
        meter: str | None = None,
    ) -> Row:
        """Return the row of a meter's minute that misses so much, or has so much too much."""
        return self._of_meter(
            kind, cause, missing, mended, customer, meter, self.at, self.at + MINUTE
        )

    def waits(
        self,
        cause: Cause,
        waiting: int,
        *,
        customer: str | None = None,
        meter: str | None = None,
    ) -> Row:
        """Return the row of a meter's hour of which so much is stuck in the outbox."""
        mended = ("open" if self.when is When.OLD else "settled", ())
        return self._of_meter(
            Kind.NOT_DELIVERED,
            cause,
            waiting,
            mended,
            customer,
            meter,
            self.hour,
            self.hour + HOUR,
        )

    def _of_meter(
        self,
        kind: Kind,
        cause: Cause,
        missing: int,
        mended: tuple[str, Repairs],
        customer: str | None,
        meter: str | None,
        start: datetime,
        end: datetime,
    ) -> Row:
        unit = UNITS[meter or self.meter]
        of = f"{customer or self.customer} {unit}"
        return Row(Pair.OUTBOX_STRIPE, kind, cause, of, start, end, {unit: missing}, *mended)

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


# --- What mends a meter ---------------------------------------------------------------------------
TOO_LATE: tuple[str, Repairs] = ("explained", ())
"""Nobody is charged by it, and Stripe takes nothing of that age."""
NO_STATEMENT: tuple[str, Repairs] = ("open", (("collect_later", "refused"),))
"""The next statement would make up for it, and the period has none that is final."""


def sent_again(strike: Strike, meter: str | None = None) -> tuple[str, Repairs]:
    """A lost event: in vain while Stripe knows the identifier, and then under its next one."""
    match strike.when:
        case When.SOON:
            return "settled", (("resend", "refused"), ("resend", "done"))
        case When.LATER:
            return "settled", (("resend", "done"),)
        case When.OLD:
            return _too_old(strike.customer, meter or strike.meter)


def taken_back(strike: Strike, customer: str) -> tuple[str, Repairs]:
    """An event that counts too much: cancelled while Stripe does that."""
    if strike.when is When.SOON:
        return "settled", (("cancel_event", "done"),)
    return corrected(strike, customer)


def corrected(strike: Strike, customer: str) -> tuple[str, Repairs]:
    """A sum that no event of ours explains, or none that may be sent again."""
    if strike.when is When.OLD:
        return _too_old(customer, strike.meter)
    return "settled", (("correct_meter", "done"),)


def _too_old(customer: str, meter: str) -> tuple[str, Repairs]:
    return NO_STATEMENT if (customer, meter) == (PRICED, CHARGE_METER) else TOO_LATE


# --- At Stripe ------------------------------------------------------------------------------------
async def lost_event(strike: Strike) -> Expected:
    """Stripe acknowledges an event and never counts it."""
    struck, beside = await strike.two()
    await strike.send(struck, beside, "lost_event", strike.meter)
    missing = value(struck, strike.meter)
    return Expected(
        [strike.counted(Kind.NOT_COUNTED, Cause.LOST_EVENT, missing, sent_again(strike))]
    )


async def one_of_two_alike_lost(strike: Strike) -> Expected:
    """Stripe loses one of two equal events of a minute: which one cannot be told."""
    struck, beside = await strike.two(alike=True)
    missing = value(struck, strike.meter)
    assert missing == value(beside, strike.meter)
    await strike.send(struck, beside, "lost_event", strike.meter)
    mended = corrected(strike, strike.customer)
    return Expected([strike.counted(Kind.NOT_COUNTED, Cause.UNKNOWN, missing, mended)])


async def lost_request(strike: Strike) -> Expected:
    """Stripe loses all events of a request."""
    struck, beside = await strike.two()
    await strike.send(struck, beside, "lost_event", meter="")
    return Expected(
        [
            strike.counted(
                Kind.NOT_COUNTED,
                Cause.LOST_EVENT,
                value(struck, meter),
                sent_again(strike, meter),
                meter=meter,
            )
            for meter in METERS
        ]
    )


async def counted_twice(strike: Strike) -> Expected:
    """Stripe counts an event twice."""
    struck, beside = await strike.two()
    await strike.send(struck, beside, "counted_twice", strike.meter)
    more = -value(struck, strike.meter)
    mended = taken_back(strike, strike.customer)
    return Expected([strike.counted(Kind.OVERCOUNTED, Cause.COUNTED_TWICE, more, mended)])


async def wrong_customer(strike: Strike) -> Expected:
    """Stripe counts an event for another customer, who uses Claude too."""
    other, meter = strike.other_customer, strike.meter
    struck, beside = await strike.two()
    mapped = strike.world.stripe_ids[other]
    await strike.send(struck, beside, "wrong_customer", meter, customer=mapped)
    missing = value(struck, meter)
    return Expected(
        [
            strike.counted(
                Kind.NOT_COUNTED,
                Cause.WRONG_CUSTOMER,
                missing,
                corrected(strike, strike.customer),
            ),
            strike.counted(
                Kind.OVERCOUNTED,
                Cause.WRONG_CUSTOMER,
                -missing,
                taken_back(strike, other),
                customer=other,
            ),
        ]
    )


async def wrong_customer_without_activity(strike: Strike) -> Expected:
    """Stripe counts an event for a customer who uses nothing, and is therefore not asked about."""
    struck, beside = await strike.two()
    idle = strike.world.stripe_ids["idle"]
    await strike.send(struck, beside, "wrong_customer", strike.meter, customer=idle)
    missing = value(struck, strike.meter)
    return Expected(
        [strike.counted(Kind.NOT_COUNTED, Cause.LOST_EVENT, missing, sent_again(strike))]
    )


async def outside_event(strike: Strike) -> Expected:
    """Somebody else tells Stripe of usage of our customer's."""
    for asked in await strike.two():
        await strike.world.send(asked)
    foreign = FOREIGN + strike.seed
    await strike.world.count_at_stripe(strike.customer, strike.meter, strike.later(40), foreign)
    mended = corrected(strike, strike.customer)
    return Expected([strike.counted(Kind.OVERCOUNTED, Cause.OUTSIDE_EVENT, -foreign, mended)])


async def rejected_later(strike: Strike) -> Expected:
    """Stripe takes an event and rejects it in an error report, which has arrived."""
    struck, beside = await strike.two()
    code = "meter_event_customer_not_found"
    await strike.send(struck, beside, "rejected_later", strike.meter, code=code)
    await strike.world.report_rejection(struck.events[strike.meter].identifier, code)

    async def retry() -> None:
        await strike.world.send(struck)

    return Expected([strike.waits(Cause.REJECTED_LATER, value(struck, strike.meter))], retry)


async def stuck_in_the_outbox(strike: Strike) -> Expected:
    """A customer whom Stripe does not know yet: all events are parked."""
    name = f"unmapped-{strike.at:%H}"
    await strike.world.add_customer(name, mapped=False)
    asked = await strike.world.ask(name, strike.later(5))
    await strike.world.send(asked)

    async def map_and_retry() -> None:
        await strike.world.map(name)
        await strike.world.send(asked)

    rows = [
        strike.waits(Cause.STUCK_METERING, value(asked, meter), customer=name, meter=meter)
        for meter in METERS
    ]
    return Expected(rows, map_and_retry)


# --- In our own house -----------------------------------------------------------------------------
def _missing(strike: Strike, asked: Asked, meter: str) -> Row:
    old = strike.when is When.OLD
    return Row(
        Pair.LEDGER_OUTBOX,
        Kind.EVENT_MISSING,
        Cause.LOST_RECORD,
        f"{strike.customer} {UNITS[meter]}",
        strike.at,
        strike.at + MINUTE,
        {UNITS[meter]: value(asked, meter)},
        "open" if old else "settled",
        () if old else (("enqueue_events", "done"),),
    )


async def missing_in_the_outbox(strike: Strike) -> Expected:
    """A usage record without one of its meter events."""
    asked, beside = await strike.two()
    await strike.world.forget(asked, strike.meter)
    await strike.world.send(asked)
    await strike.world.send(beside)
    return Expected([_missing(strike, asked, strike.meter)])


async def request_missing_in_the_outbox(strike: Strike) -> Expected:
    """A usage record without any meter event."""
    asked, beside = await strike.two()
    await strike.world.forget(asked, *METERS)
    await strike.world.send(beside)
    return Expected([_missing(strike, asked, meter) for meter in METERS])


# --- Calls whose outcome nobody knows -------------------------------------------------------------
async def died_after_it_was_served(strike: Strike) -> Expected:
    """The worker dies while Claude answers; the request is asked again, and billed once."""
    return await _lost_and_asked_again(strike, model=(SONNET, HAIKU)[strike.seed % 2])


async def no_answer(strike: Strike) -> Expected:
    """The connection breaks after Claude has served the call."""
    return await _lost_and_asked_again(strike, fault="undelivered")


async def broken_stream(strike: Strike) -> Expected:
    """A stream breaks in its middle: some of its usage is known, the rest is not."""
    return await _lost_and_asked_again(strike, fault="cut_stream", streamed=True)


async def _lost_and_asked_again(strike: Strike, *, model: str = SONNET, **how: Any) -> Expected:
    before = await strike.world.served()
    key = await strike.world.lose(strike.customer, strike.later(5), model=model, **how)
    lost = _minus(await strike.world.served(), before)
    await strike.world.use(strike.customer, strike.later(35), key=key, model=model)
    return Expected([_lost_calls(strike, model, lost, attempts=1)])


async def given_up_after_it_was_served(strike: Strike) -> Expected:
    """The worker dies while Claude answers, and nobody asks again."""
    before = await strike.world.served()
    await strike.world.lose(strike.customer, strike.later(5))
    lost = _minus(await strike.world.served(), before)
    return Expected([_lost_calls(strike, SONNET, lost, attempts=1)])


async def died_before_it_was_served(strike: Strike) -> Expected:
    """The worker dies before it has reached Claude; nothing is missing anywhere."""
    key = await strike.world.lose(strike.customer, strike.later(5), served=False)
    await strike.world.use(strike.customer, strike.later(35), key=key)
    return NOTHING


async def several_deaths_in_one_hour(strike: Strike) -> Expected:
    """Two calls of an hour were served, and one between them was not."""
    before = await strike.world.served()
    await strike.world.lose(strike.customer, strike.later(5), tokens=300)
    await strike.world.lose(strike.customer, strike.later(125), tokens=4_000, served=False)
    await strike.world.lose(strike.customer, strike.later(245), tokens=700)
    lost = _minus(await strike.world.served(), before)
    return Expected([_lost_calls(strike, SONNET, lost, attempts=3)])


async def failed_calls(strike: Strike) -> Expected:
    """Calls that Claude answers with an error cost nothing and leave no difference."""
    key = strike.world.request(strike.customer)
    for number, fault in enumerate(("error_529", "error_500")):
        await strike.world.lose(strike.customer, strike.later(5 * number), key=key, fault=fault)
    await strike.world.use(strike.customer, strike.later(30), key=key)
    return NOTHING


def _lost_calls(strike: Strike, model: str, lost: TokenCounts, *, attempts: int) -> Row:
    return strike.told(
        Kind.UNRECORDED_USAGE,
        Cause.LOST_CALL,
        model,
        lost,
        "settled",
        repairs=(("settle_attempts", "done"),) * attempts,
    )


# --- What the reports tell ------------------------------------------------------------------------
async def usage_from_outside(strike: Strike) -> Expected:
    """Somebody uses our key without Tallystick: a person has to look."""
    used = TokenCounts(input=90_000 + strike.seed, output=777)
    await strike.world.serve_outside(strike.later(30), SONNET, used, requests=3)
    row = strike.told(Kind.UNRECORDED_USAGE, Cause.OUTSIDE_USAGE, SONNET, used, "open")
    return Expected([row])


async def refusal(strike: Strike) -> Expected:
    """A refusal before output: in the usage report, absent from the cost report, and free."""
    await strike.world.use(strike.customer, strike.later(5), fault="refusal")
    return NOTHING


async def refusal_left_out(strike: Strike) -> Expected:
    """A refusal before output that the usage report does not have."""
    asked = await strike.world.use(strike.customer, strike.later(5), fault="refusal")
    await strike.world.lie("hide", asked)
    return Expected(
        [
            strike.told(
                Kind.UNREPORTED_USAGE,
                Cause.REFUSALS,
                SONNET,
                _minus(TokenCounts(), as_claude_told(asked.record.evidence)),
                "explained",
            )
        ]
    )


async def edge_of_the_hour(strike: Strike) -> Expected:
    """An answer of the last seconds of an hour is reported in the next one."""
    asked = await strike.world.use(strike.customer, strike.hour + HOUR - 2 * SECOND)
    await strike.world.lie("move", asked, seconds=5)
    return Expected(
        [
            strike.told(
                Kind.MISPLACED_USAGE,
                Cause.BUCKET_EDGE,
                SONNET,
                _minus(TokenCounts(), as_claude_told(asked.record.evidence)),
                "explained",
                end=strike.hour + 2 * HOUR,
            )
        ]
    )


async def other_cache_lifetimes(strike: Strike) -> Expected:
    """Cache writes of an hour are reported, and charged to us, as writes of five minutes."""
    asked = await strike.world.use(strike.customer, strike.later(5), cached=True)
    await strike.world.lie("short_writes", asked)
    written = as_claude_told(asked.record.evidence).cache_write_1h
    assert written
    moved = TokenCounts(cache_write_5m=written, cache_write_1h=-written)
    return Expected([strike.told(Kind.MISPLACED_USAGE, Cause.CACHING, SONNET, moved, "explained")])


async def other_price(strike: Strike) -> Expected:
    """Anthropic charges for a request by another list price than the price book's."""
    asked = await strike.world.use(strike.customer, strike.later(5), model=HAIKU)
    await strike.world.lie("reprice", asked, factor="1.5")
    assert asked.record.cost_usd is not None
    return Expected(
        [
            Row(
                Pair.COST_LEDGER,
                Kind.COST_DIFFERS,
                Cause.PRICE,
                HAIKU,
                DAY,
                NEXT_DAY,
                {"nano_usd": int(asked.record.cost_usd * 10**9 / 2)},
                "open",
            )
        ]
    )


def as_claude_told(evidence: Mapping[str, Any]) -> TokenCounts:
    """Return what a reply of Claude's said, also of what is free."""
    usage = evidence["usage"]
    writes = usage["cache_creation"]
    return TokenCounts(
        input=usage["input_tokens"],
        output=usage["output_tokens"],
        cache_write_5m=writes["ephemeral_5m_input_tokens"],
        cache_write_1h=writes["ephemeral_1h_input_tokens"],
        cache_read=usage["cache_read_input_tokens"],
    )


def _minus(one: TokenCounts, other: TokenCounts) -> TokenCounts:
    return TokenCounts(*(a - b for a, b in zip(one, other, strict=True)))


# --- Fifty days -----------------------------------------------------------------------------------
AT_STRIPE: tuple[Fault, ...] = (
    lost_event,
    one_of_two_alike_lost,
    lost_request,
    counted_twice,
    wrong_customer,
    wrong_customer_without_activity,
    outside_event,
    rejected_later,
    stuck_in_the_outbox,
    missing_in_the_outbox,
    request_missing_in_the_outbox,
)
IN_THE_REPORTS: tuple[Fault, ...] = (
    died_after_it_was_served,
    no_answer,
    broken_stream,
    given_up_after_it_was_served,
    died_before_it_was_served,
    several_deaths_in_one_hour,
    failed_calls,
    usage_from_outside,
    refusal,
    refusal_left_out,
    edge_of_the_hour,
    other_cache_lifetimes,
    other_price,
)
"""Which are not seen without an admin key."""
CATALOGUE = (*AT_STRIPE, *IN_THE_REPORTS)


class Reports(Enum):
    """What can be had of Anthropic's reports."""

    IN_TIME = "in time"
    LATE = "late"
    """Behind at the first look, there at the next."""
    NO_KEY = "no admin key"


@dataclass(frozen=True)
class Scenario:
    """A day on which one to three faults strike. Drawn by its seed, and the same each time."""

    seed: int
    faults: tuple[Fault, ...]
    when: When
    reports: Reports

    @property
    def name(self) -> str:
        told = [self.when.name.lower(), *(fault.__name__ for fault in self.faults)]
        if self.reports is not Reports.IN_TIME:
            told.insert(1, self.reports.value.replace(" ", "_"))
        return f"{self.seed:02}-{'-'.join(told)}"

    def strikes(self, world: World) -> list[tuple[Fault, Strike]]:
        """Return each fault with where and when it strikes."""
        draw = Random(1_000 + self.seed)
        return [
            (
                fault,
                Strike(
                    world,
                    at=DAY + hour * HOUR + draw.randrange(10, 25) * MINUTE,
                    when=self.when,
                    customer=draw.choice(CUSTOMERS),
                    meter=draw.choice(METERS),
                    seed=self.seed,
                ),
            )
            for fault, hour in zip(self.faults, HOURS, strict=False)
        ]


def scenario(seed: int) -> Scenario:
    """Draw a day: every fault is the first of two or three days, the others come as they may."""
    draw = Random(seed)
    first = CATALOGUE[seed % len(CATALOGUE)]
    others = [fault for fault in CATALOGUE if fault is not first]
    reports = Reports.IN_TIME
    if seed % 10 == 3:
        reports = Reports.NO_KEY
    elif seed % 10 == 7:
        reports = Reports.LATE
    return Scenario(
        seed=seed,
        faults=(first, *draw.sample(others, draw.randrange(3))),
        when=draw.choices([*When], weights=[5, 3, 2])[0],
        reports=reports,
    )


SCENARIOS = tuple(scenario(seed) for seed in range(1, 51))
