"""What can go wrong between a usage record and the sum that Stripe charges by."""

from dataclasses import replace

from tallystick.metering import CHARGE_METER, UNITS
from tallystick.reconciling.findings import Cause, Kind, Pair
from tests.reconciliation.striking import (
    INPUT,
    METERS,
    PRICED,
    Expected,
    Fault,
    Mended,
    Remedy,
    Row,
    Strike,
    When,
    value,
)
from tests.reconciliation.world import (
    MINUTE,
    Asked,
)

FOREIGN = 10**9
"""More than any sum of ours, so that no set of events explains it."""


# --- What mends a meter ---------------------------------------------------------------------------
TOO_LATE: Mended = ("explained", ())
"""Nobody is charged by it, and Stripe takes nothing of that age."""
NO_STATEMENT: Mended = ("open", (("collect_later", "refused"),))
"""The next statement would make up for it, and the period has none that is final."""


def sent_again(strike: Strike, meter: str | None = None) -> Mended:
    """A lost event: in vain while Stripe knows the identifier, and then under its next one."""
    match strike.when:
        case When.SOON:
            return "settled", (("resend", "refused"), ("resend", "done"))
        case When.LATER:
            return "settled", (("resend", "done"),)
        case When.OLD | When.CLOSED:
            return too_late(strike.customer, meter or strike.meter)


def taken_back(strike: Strike, customer: str) -> Mended:
    """An event that counts too much: cancelled while Stripe does that."""
    if strike.when is When.SOON:
        return "settled", (("cancel_event", "done"),)
    return corrected(strike, customer)


def corrected(strike: Strike, customer: str) -> Mended:
    """A sum that no event of ours explains, or none that may be sent again."""
    if strike.when is When.OLD:
        return too_late(customer, strike.meter)
    return "settled", (("correct_meter", "done"),)


def too_late(customer: str, meter: str) -> Mended:
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


# --- Of a period that is closed -------------------------------------------------------------------
async def counted_while_invoiced(strike: Strike) -> Expected:
    """In the moment in which the invoice becomes final, Stripe counts what is not ours."""
    strike = replace(strike, customer=PRICED, meter=CHARGE_METER)
    mended: Mended = ("explained", (("collect_later", "done"),))
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


async def _counted_later(strike: Strike, mended: Mended) -> tuple[Expected, Remedy]:
    for asked in await strike.two():
        await strike.world.send(asked)
    foreign = FOREIGN + strike.seed

    async def count() -> None:
        await strike.world.count_at_stripe(strike.customer, strike.meter, strike.later(40), foreign)

    row = strike.counted(Kind.OVERCOUNTED, Cause.OUTSIDE_EVENT, -foreign, mended)
    return Expected([row]), count


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
OF_A_CLOSED_PERIOD: tuple[Fault, ...] = (
    counted_while_invoiced,
    counted_after_it_was_invoiced,
    tokens_counted_after_it_was_invoiced,
)
"""Until its invoice is final nothing may differ at Stripe; so nothing else is wrong there then."""
