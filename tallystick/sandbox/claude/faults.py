"""What can go wrong with a Claude call, each fault a class that says where it strikes.

A fault may act `before` the work (refuse, cut, delay), `reshape` the reply that is served, or
`disturb` the parts of the answer on their way out. What it reshapes is journalled as served; what
it disturbs was served whole, and the journal says that it did not arrive. A request that a fault
does not strike at passes it by. The options' defaults are what a rate uses. Facts on Claude,
'Fakes: our sandbox server must imitate', lists them; `batch_faults` has those of batches alone.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from typing_extensions import override

from tallystick.sandbox.claude.errors import ApiError, ConnectionCut
from tallystick.sandbox.claude.replies import Iteration, Reply
from tallystick.sandbox.claude.streaming import Part, event
from tallystick.sandbox.claude.tokens import CHARACTERS_PER_TOKEN, Tokens
from tallystick.sandbox.faults import Fault

Count = Annotated[int, Field(ge=0)]

Place = Literal["message", "stream", "call", "results", "item"]
"""A request for a message, whole or streamed; a call about a batch; one for its file of results;
one of its items."""

_CALLS: frozenset[Place] = frozenset({"message", "stream", "call", "results"})
_REPLIES: frozenset[Place] = frozenset({"message", "stream", "item"})
_STREAMS: frozenset[Place] = frozenset({"stream"})


class ClaudeFault(Fault):
    """Base of the faults here: does nothing at each of the three places."""

    strikes: ClassVar[frozenset[Place]] = _CALLS

    async def before(self) -> None:
        """Act before any work is done; may raise ApiError or ConnectionCut."""

    def reshape(self, reply: Reply) -> Reply:
        """Return what is served instead."""
        return reply

    def disturb(self, parts: Iterator[Part]) -> Iterator[Part]:
        """Return what leaves of the answer; may raise ConnectionCut on the way."""
        return parts


# --- Refused or lost before any work --------------------------------------------------------------
class _Refused(ClaudeFault):
    status: ClassVar[int]

    message: str = "A fault that was asked for"

    @override
    async def before(self) -> None:
        raise ApiError(self.status, self.message)


class Error400(_Refused):
    """An invalid request; also how a spend limit one has set oneself arrives."""

    name = "error_400"
    status = 400


class Error401(_Refused):
    """The key is not accepted."""

    name = "error_401"
    status = 401


class Error402(_Refused):
    """Payment is required."""

    name = "error_402"
    status = 402


class Error403(_Refused):
    """The key may not do this."""

    name = "error_403"
    status = 403


class Error404(_Refused):
    """Not found, although it is there: what asking for a new batch has been seen to give.

    Source: anthropics/anthropic-sdk-python#1432.
    """

    name = "error_404"
    status = 404


class Error500(_Refused):
    """An internal error."""

    name = "error_500"
    status = 500


class Error503(_Refused):
    """The service is unavailable."""

    name = "error_503"
    status = 503


class Error529(_Refused):
    """The service is overloaded."""

    name = "error_529"
    status = 529


class RateLimited(ClaudeFault):
    """429 with `retry-after`, in seconds."""

    name = "rate_limited"

    retry_after: Annotated[float, Field(ge=0)] = 1.0

    @override
    async def before(self) -> None:
        raise ApiError(429, "The rate limit is exceeded", retry_after=self.retry_after)


class SpendLimit(ClaudeFault):
    """429 without `retry-after`: waiting does not help."""

    name = "spend_limit"

    code: Literal["enforced_spend_limit_reached", "contract_spend_limit_reached"] = (
        "enforced_spend_limit_reached"
    )

    @override
    async def before(self) -> None:
        raise ApiError(429, "The spend limit is reached", code=self.code)


class Reset(ClaudeFault):
    """The connection is reset before any work: nothing is served, nothing billed."""

    name = "reset"

    @override
    async def before(self) -> None:
        raise ConnectionCut


class Slow(ClaudeFault):
    """Served after a delay in seconds, whether or not the client has waited."""

    name = "slow"

    seconds: Annotated[float, Field(ge=0)] = 5.0

    @override
    async def before(self) -> None:
        await asyncio.sleep(self.seconds)


# --- Served, but the answer does not arrive -------------------------------------------------------
class Undelivered(ClaudeFault):
    """Served and billed; the connection is reset before the first byte of the answer."""

    name = "undelivered"

    @override
    def disturb(self, parts: Iterator[Part]) -> Iterator[Part]:
        raise ConnectionCut


class _BrokenStream(ClaudeFault):
    """A stream that goes wrong behind its first `after` deltas."""

    strikes = _STREAMS

    after: Count = 1

    def _beginning(self, parts: Iterator[Part]) -> Iterator[Part]:
        deltas = 0
        for part in parts:
            deltas += part.tokens > 0
            if deltas > self.after or part.last:
                return
            yield part


class CutStream(_BrokenStream):
    """The connection is reset in the middle of the stream."""

    name = "cut_stream"

    @override
    def disturb(self, parts: Iterator[Part]) -> Iterator[Part]:
        yield from self._beginning(parts)
        raise ConnectionCut


class TruncatedStream(_BrokenStream):
    """The stream ends tidily, without `message_stop` and without an error."""

    name = "truncated_stream"

    @override
    def disturb(self, parts: Iterator[Part]) -> Iterator[Part]:
        yield from self._beginning(parts)


class StreamError(_BrokenStream):
    """An `error` event in the middle of the stream."""

    name = "stream_error"

    error: str = "overloaded_error"

    @override
    def disturb(self, parts: Iterator[Part]) -> Iterator[Part]:
        yield from self._beginning(parts)
        yield event(
            "error", {"error": {"type": self.error, "message": "A fault that was asked for"}}
        )


# --- Served in an uncommon shape ------------------------------------------------------------------
class _Reshaped(ClaudeFault):
    strikes = _REPLIES


class Refusal(_Reshaped):
    """Declined before any output: no content, usage not zero, free."""

    name = "refusal"

    output_tokens: Count = 1

    @override
    def reshape(self, reply: Reply) -> Reply:
        tokens = replace(reply.tokens, output=self.output_tokens)
        return replace(reply, content=[], tokens=tokens, stop_reason="refusal")


class MidstreamRefusal(_Reshaped):
    """Declined after half of the output: what was put out is billed."""

    name = "midstream_refusal"

    @override
    def reshape(self, reply: Reply) -> Reply:
        half = (reply.tokens.output + 1) // 2
        content = [
            {"type": "text", "text": block["text"][: half * CHARACTERS_PER_TOKEN]}
            for block in reply.content
        ]
        tokens = replace(reply.tokens, output=half)
        return replace(reply, content=content, tokens=tokens, stop_reason="refusal")


class Differs(_Reshaped):
    """Served otherwise than asked for; the response alone says so."""

    name = "differs"

    model: str | None = None
    inference_geo: str | None = None
    speed: str | None = None
    service_tier: str | None = None

    @model_validator(mode="after")
    def _something(self) -> "Differs":
        if not self.model_fields_set:
            raise ValueError("say what differs: model, inference_geo, speed or service_tier")
        return self

    @override
    def reshape(self, reply: Reply) -> Reply:
        return replace(reply, **self.model_dump(exclude_none=True))


class UnknownModel(_Reshaped):
    """The response names a model that no price list has."""

    name = "unknown_model"

    model: str = "claude-unheard-of-9"

    @override
    def reshape(self, reply: Reply) -> Reply:
        return replace(reply, model=self.model)


class Compaction(_Reshaped):
    """An iteration that summarised the context: billed, outside the top-level usage."""

    name = "compaction"

    input_tokens: Count = 5_000
    output_tokens: Count = 400

    @override
    def reshape(self, reply: Reply) -> Reply:
        extra = Iteration("compaction", Tokens(self.input_tokens, output=self.output_tokens))
        return replace(reply, iterations=[extra, Iteration("message", reply.tokens)])


class Advisor(_Reshaped):
    """An iteration by another model: billed at that one's prices, outside the top-level usage."""

    name = "advisor"

    model: str = "claude-opus-5-5"
    input_tokens: Count = 2_000
    output_tokens: Count = 300

    @override
    def reshape(self, reply: Reply) -> Reply:
        tokens = Tokens(self.input_tokens, output=self.output_tokens)
        extra = Iteration("advisor_message", tokens, self.model)
        return replace(reply, iterations=[Iteration("message", reply.tokens), extra])


class Fallback(_Reshaped):
    """The requested model declined, another served: each attempt has its entry and its price.

    With `declined_output` 0 the first attempt is listed but free. The top level shows the serving
    attempt; a stream's `message_start` still names the requested model.
    """

    name = "fallback"

    model: str = "claude-opus-4-8"
    declined_output: Count = 0

    @override
    def reshape(self, reply: Reply) -> Reply:
        asked = reply.model
        declined = replace(reply.tokens, output=self.declined_output)
        seam = {
            "type": "fallback",
            "from": {"model": asked},
            "to": {"model": self.model},
            "trigger": {"type": "refusal", "category": "general_harms"},
        }
        return replace(
            reply,
            model=self.model,
            start_model=asked,
            content=[seam, *reply.content],
            iterations=[
                Iteration("message", declined, asked, free=self.declined_output == 0),
                Iteration("fallback_message", reply.tokens, self.model),
            ],
        )


class GrowingInput(_Reshaped):
    """Input that comes to light only while streaming, as server tools cause it."""

    name = "growing_input"
    strikes = _STREAMS

    tokens: Annotated[int, Field(gt=0)] = 8_000

    @override
    def reshape(self, reply: Reply) -> Reply:
        grown = reply.tokens + Tokens(input=self.tokens)
        return replace(reply, tokens=grown, growth=self.tokens)


CLAUDE_FAULTS: tuple[type[ClaudeFault], ...] = (
    Error400,
    Error401,
    Error402,
    Error403,
    Error404,
    Error500,
    Error503,
    Error529,
    RateLimited,
    SpendLimit,
    Reset,
    Slow,
    Undelivered,
    CutStream,
    TruncatedStream,
    StreamError,
    Refusal,
    MidstreamRefusal,
    Differs,
    UnknownModel,
    Compaction,
    Advisor,
    Fallback,
    GrowingInput,
)
"""All of them, by `name` in the control API."""
