"""The catalogue of what can go wrong with a day's records, and fifty days on which some of it does.

A fault makes its own traffic in an hour of its own, does to it what its name says, and states the
rows that reconciliation has to find for it, the repairs that are tried, and how each row stands in
the end. Nothing else may be found: requests that nothing is wrong with go on beside it, in the same
minute, in the same hour, by the same customers.

What mends a meter depends on its age and on whether money hangs on it, so a fault is told when the
day will be looked at (`When`).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
NANO_USD_IN, NANO_USD_OUT = 2_000, 10_000
"""What a token of Sonnet 5.5's costs us."""


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
        case When.OLD | When.CLOSED:
            return too_late(strike.customer, meter or strike.meter)


def taken_back(strike: Strike, customer: str) -> tuple[str, Repairs]:
    """An event that counts too much: cancelled while Stripe does that."""
    if strike.when is When.SOON:
        return "settled", (("cancel_event", "done"),)
    return corrected(strike, customer)


def corrected(strike: Strike, customer: str) -> tuple[str, Repairs]:
    """A sum that no event of ours explains, or none that may be sent again."""
    if strike.when is When.OLD:
        return too_late(customer, strike.meter)
    return "settled", (("correct_meter", "done"),)


def too_late(customer: str, meter: str) -> tuple[str, Repairs]:
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


async def answer_lost(strike: Strike) -> Expected:
    """Stripe counts a request's events, and nobody hears of it: they wait, and count already."""
    struck, beside = await strike.two()
    await strike.world.send(beside)
    identifier = struck.events[strike.meter].identifier
    await strike.world.stripe.fault("no_answer", match=identifier)
    await strike.world.send(struck)

    async def retry() -> None:
        await strike.world.send(struck)

    rows = [
        replace(
            strike.waits(Cause.STUCK_METERING, value(struck, meter), meter=meter), state="settled"
        )
        for meter in METERS
    ]
    return Expected(rows, retry)


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


async def row_lost_after_it_was_sent(strike: Strike) -> Expected:
    """A meter event that Stripe counts and the outbox has lost since.

    Put there again, it is sent again: which Stripe counts once as long as it knows the identifier.
    """
    asked, beside = await strike.two()
    await strike.world.send(asked)
    await strike.world.send(beside)
    await strike.world.forget(asked, strike.meter)
    more = -value(asked, strike.meter)
    mended = ("settled", ()) if strike.when is When.SOON else corrected(strike, strike.customer)
    return Expected(
        [
            _missing(strike, asked, strike.meter),
            strike.counted(Kind.OVERCOUNTED, Cause.OUTSIDE_EVENT, more, mended),
        ]
    )


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
    return Expected([_lost_calls(strike, model, lost)], lost=[True])


async def given_up_after_it_was_served(strike: Strike) -> Expected:
    """The worker dies while Claude answers, and nobody asks again."""
    before = await strike.world.served()
    await strike.world.lose(strike.customer, strike.later(5))
    lost = _minus(await strike.world.served(), before)
    return Expected([_lost_calls(strike, SONNET, lost)], lost=[True])


async def died_before_it_was_served(strike: Strike) -> Expected:
    """The worker dies before it has reached Claude; nothing is missing anywhere."""
    key = await strike.world.lose(strike.customer, strike.later(5), served=False)
    await strike.world.use(strike.customer, strike.later(35), key=key)
    return Expected(lost=[False])


async def several_deaths_in_one_hour(strike: Strike) -> Expected:
    """Two calls of an hour were served, and one between them was not."""
    before = await strike.world.served()
    await strike.world.lose(strike.customer, strike.later(5), tokens=300)
    await strike.world.lose(strike.customer, strike.later(125), tokens=4_000, served=False)
    await strike.world.lose(strike.customer, strike.later(245), tokens=700)
    lost = _minus(await strike.world.served(), before)
    row = _lost_calls(strike, SONNET, lost, served=2)
    return Expected([row], lost=[True, False, True])


async def failed_calls(strike: Strike) -> Expected:
    """Calls that Claude answers with an error cost nothing and leave no difference."""
    key = strike.world.request(strike.customer)
    for number, fault in enumerate(("error_529", "error_500")):
        await strike.world.lose(strike.customer, strike.later(5 * number), key=key, fault=fault)
    await strike.world.use(strike.customer, strike.later(30), key=key)
    return NOTHING


async def lost_call_beside_usage_from_outside(strike: Strike) -> Expected:
    """A lost call was served in an hour in which somebody else used our key too."""
    before = await strike.world.served()
    key = await strike.world.lose(strike.customer, strike.later(5))
    lost = _minus(await strike.world.served(), before)
    await strike.world.use(strike.customer, strike.later(35), key=key)
    outside = TokenCounts(input=70_000 + strike.seed, output=555)
    await strike.world.serve_outside(strike.later(10 * 60), SONNET, outside, requests=2)
    rows = [
        _lost_calls(strike, SONNET, lost, start=strike.at, end=strike.at + MINUTE),
        strike.told(Kind.UNRECORDED_USAGE, Cause.OUTSIDE_USAGE, SONNET, outside, "open"),
    ]
    return Expected(rows, lost=[True])


async def failed_call_that_is_reported(strike: Strike) -> Expected:
    """A call that Claude has answered with an error is in its report all the same."""
    key = strike.world.request(strike.customer)
    await strike.world.lose(strike.customer, strike.later(5), key=key, fault="error_500")
    await strike.world.use(strike.customer, strike.later(35), key=key)
    used = TokenCounts(input=390 + strike.seed)
    await strike.world.serve_outside(strike.later(6), SONNET, used, requests=1)
    row = strike.told(Kind.UNRECORDED_USAGE, Cause.FAILED_REQUESTS, SONNET, used, "explained")
    return Expected([row])


def _lost_calls(
    strike: Strike, model: str, lost: TokenCounts, *, served: int = 1, **changes: datetime
) -> Row:
    repairs = (("settle_attempts", "done"),) * served
    return strike.told(
        Kind.UNRECORDED_USAGE, Cause.LOST_CALL, model, lost, "settled", repairs=repairs, **changes
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


async def charged_refusal(strike: Strike) -> Expected:
    """A refusal before output that Anthropic charges for, although it should be free."""
    asked = await strike.world.use(strike.customer, strike.later(5), fault="refusal")
    await strike.world.lie("charge", asked)
    told = as_claude_told(asked.record.evidence)
    cost = told.input * NANO_USD_IN + told.output * NANO_USD_OUT
    return Expected([_cost(SONNET, Cause.REFUSALS, cost)])


async def declined_hop(strike: Strike) -> Expected:
    """A model declined before any output and another one has served: the first prompt is free,
    reported, and in no record."""
    asked = await strike.world.use(strike.customer, strike.later(5), fault="fallback")
    declined = asked.record.evidence["usage"]["iterations"][0]
    told = TokenCounts(input=declined["input_tokens"])
    row = strike.told(Kind.UNRECORDED_USAGE, Cause.REFUSALS, SONNET, told, "explained")
    return Expected([row])


async def discount(strike: Strike) -> Expected:
    """Anthropic charges less than its list price: a matter between the two of us."""
    asked = await strike.world.use(strike.customer, strike.later(5))
    await strike.world.lie("discount", asked, percent="20")
    return NOTHING


async def served_otherwise(strike: Strike) -> Expected:
    """Replies that more than one model has worked on, from elsewhere, or without a price."""
    faults = ("compaction", "advisor", "midstream_refusal", "unknown_model")
    for number, fault in enumerate(faults):
        await strike.world.use(strike.customer, strike.later(5 + 10 * number), fault=fault)
    await strike.world.use(
        strike.customer, strike.later(70), fault="differs", options={"inference_geo": "us"}
    )
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
    return Expected([_cost(HAIKU, Cause.PRICE, int(asked.record.cost_usd * 10**9 / 2))])


def _cost(model: str, cause: Cause, nano_usd: int) -> Row:
    """Return the row of a model's day for which the cost report has so much more."""
    return Row(
        Pair.COST_LEDGER,
        Kind.COST_DIFFERS,
        cause,
        model,
        DAY,
        NEXT_DAY,
        {"nano_usd": nano_usd},
        "open",
    )


# --- Of a period that is closed -------------------------------------------------------------------
async def counted_while_invoiced(strike: Strike) -> Expected:
    """In the moment in which the invoice becomes final, Stripe counts what is not ours."""
    strike = replace(strike, customer=PRICED, meter=CHARGE_METER)
    mended: tuple[str, Repairs] = ("explained", (("collect_later", "done"),))
    expected, count = await _counted_later(strike, mended)
    return replace(expected, while_invoiced=count)


async def counted_after_it_was_invoiced(strike: Strike) -> Expected:
    """Stripe counts for a period what its final invoice has not collected: no money is wrong."""
    strike = replace(strike, customer=PRICED, meter=CHARGE_METER)
    expected, count = await _counted_later(strike, NO_STATEMENT)
    return replace(expected, afterwards=count)


async def tokens_counted_after_it_was_invoiced(strike: Strike) -> Expected:
    """The same of a meter without a price, which can be put right."""
    strike = replace(strike, customer=PRICED, meter=INPUT)
    expected, count = await _counted_later(strike, corrected(strike, PRICED))
    return replace(expected, afterwards=count)


async def _counted_later(strike: Strike, mended: tuple[str, Repairs]) -> tuple[Expected, Remedy]:
    for asked in await strike.two():
        await strike.world.send(asked)
    foreign = FOREIGN + strike.seed

    async def count() -> None:
        await strike.world.count_at_stripe(strike.customer, strike.meter, strike.later(40), foreign)

    row = strike.counted(Kind.OVERCOUNTED, Cause.OUTSIDE_EVENT, -foreign, mended)
    return Expected([row]), count


def as_claude_told(evidence: Mapping[str, Any]) -> TokenCounts:
    """Return what a reply of Claude's said at its top level, also of what is free."""
    return _counts(evidence["usage"])


def by_model(evidence: Mapping[str, Any]) -> list[tuple[str, TokenCounts]]:
    """Return what each model did for a reply; an attempt that was declined is in no record."""
    usage, model = evidence["usage"], evidence["model"]
    if not usage.get("iterations"):
        return [(model, _counts(usage))]
    return [
        (each.get("model") or model, _counts(each))
        for each in usage["iterations"]
        if each["output_tokens"]
    ]


def _counts(usage: Mapping[str, Any]) -> TokenCounts:
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
    answer_lost,
    stuck_in_the_outbox,
    missing_in_the_outbox,
    request_missing_in_the_outbox,
    row_lost_after_it_was_sent,
)
IN_THE_REPORTS: tuple[Fault, ...] = (
    died_after_it_was_served,
    no_answer,
    broken_stream,
    given_up_after_it_was_served,
    died_before_it_was_served,
    several_deaths_in_one_hour,
    lost_call_beside_usage_from_outside,
    failed_calls,
    failed_call_that_is_reported,
    usage_from_outside,
    served_otherwise,
    refusal,
    refusal_left_out,
    charged_refusal,
    declined_hop,
    discount,
    edge_of_the_hour,
    other_cache_lifetimes,
    other_price,
)
"""Which are not seen without an admin key."""
CATALOGUE = (*AT_STRIPE, *IN_THE_REPORTS)
OF_THE_COST: frozenset[Fault] = frozenset({charged_refusal, other_price})
TELLS_USAGE_OTHERWISE: frozenset[Fault] = frozenset(
    {
        died_after_it_was_served,
        no_answer,
        broken_stream,
        given_up_after_it_was_served,
        several_deaths_in_one_hour,
        lost_call_beside_usage_from_outside,
        failed_call_that_is_reported,
        usage_from_outside,
        other_cache_lifetimes,
    }
)
"""On a day of one of these, money that differs is not said to be a matter of price: its cause is
not known until the tokens agree."""
OF_A_CLOSED_PERIOD: tuple[Fault, ...] = (
    counted_while_invoiced,
    counted_after_it_was_invoiced,
    tokens_counted_after_it_was_invoiced,
)
"""Until its invoice is final nothing may differ at Stripe; so nothing else is wrong there then."""


class Reports(Enum):
    """What can be had of Anthropic's reports."""

    IN_TIME = "in time"
    LATE = "late"
    """Behind at the first look, there at the next."""
    NO_KEY = "no admin key"


PINNED: Mapping[int, tuple[Fault, ...]] = {
    48: (failed_calls, charged_refusal, refusal_left_out),
    49: (died_after_it_was_served, declined_hop, edge_of_the_hour),
}
"""Days that are not drawn: the records once were taken for explained by each other's faults."""


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


WHENS = (When.SOON, When.LATER, When.OLD)
DAYS_AT_STRIPE = len(AT_STRIPE) * len(WHENS)
DAYS = 50


def scenario(seed: int) -> Scenario:
    """Draw a day.

    Each fault at Stripe has its own three days, one for each age at which it is looked at; then
    come days of a period that is closed, and days on which nothing is wrong there. What else
    strikes on a day is drawn, first of all from what the reports tell.
    """
    draw = Random(seed)
    reports = Reports.IN_TIME
    if seed % 10 == 3:
        reports = Reports.NO_KEY
    elif seed % 10 == 7:
        reports = Reports.LATE
    second, others = IN_THE_REPORTS[seed % len(IN_THE_REPORTS)], CATALOGUE
    if seed <= DAYS_AT_STRIPE:
        first, when = AT_STRIPE[(seed - 1) // len(WHENS)], WHENS[(seed - 1) % len(WHENS)]
    elif seed <= DAYS_AT_STRIPE + len(OF_A_CLOSED_PERIOD):
        first, when = OF_A_CLOSED_PERIOD[seed - DAYS_AT_STRIPE - 1], When.CLOSED
        others = IN_THE_REPORTS
    else:
        first, when = second, draw.choice(WHENS)
        second, others = draw.choice(IN_THE_REPORTS), IN_THE_REPORTS
    drawn = dict.fromkeys((first, second, draw.choice(others)))
    faults = tuple(drawn)[: draw.randint(1, 3)]
    if OF_THE_COST & {*faults}:
        faults = tuple(fault for fault in faults if fault not in TELLS_USAGE_OTHERWISE)
    return Scenario(seed, PINNED.get(seed, faults), when, reports)


SCENARIOS = tuple(scenario(seed) for seed in range(1, DAYS + 1))
