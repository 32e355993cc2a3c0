"""What can go wrong with calls to Claude, and what Anthropic's reports can tell of them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tallystick.pricing import TokenCounts
from tallystick.reconciling.findings import Cause, Kind, Pair
from tests.reconciliation.striking import (
    NOTHING,
    Expected,
    Fault,
    Row,
    Strike,
)
from tests.reconciliation.world import (
    DAY,
    HAIKU,
    HOUR,
    MINUTE,
    NEXT_DAY,
    SECOND,
    SONNET,
)

NANO_USD_IN, NANO_USD_OUT = 2_000, 10_000
"""What a token of Sonnet 5.5's costs us."""


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


# --- Counts ---------------------------------------------------------------------------------------
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
