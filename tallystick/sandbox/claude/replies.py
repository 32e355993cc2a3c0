"""The reply to a request: made from the request alone, so that a run can be repeated.

Text and length are a function of the prompt; `max_tokens` only cuts it. Ids are fresh each time,
as each call to Claude is a new one. A `Draft` is all that is decided about a reply, without its
text: small enough to be kept for each item of a batch, and written out whenever it is asked for. A
`Reply` holds what the wire shows and, beside it, what is billed of it: the two differ for refusals
and for iterations, and the journal needs both.
"""

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tallystick.sandbox.claude.bodies import MessagesBody
from tallystick.sandbox.claude.tokens import CHARACTERS_PER_TOKEN, Tokens

_TALE = (
    "A stick of hazel was notched for the sum and split along its length. The longer half went to "
    "the one who had paid, the shorter to the one who had been paid. Neither could add a notch "
    "alone, for the halves were laid together when the account was settled and had to match. "
    "Where they did not, the difference was looked for in the year's receipts, line by line, until "
    "it had a name. Clerks wrote of floods, lost ships and honest mistakes, and of few thieves. "
    "What was owed was carved before the grain was measured, and what was measured was carved "
    "before the cart had left the yard. So nobody had to trust a memory, and nobody did. "
)
_LENGTHS, _LENGTHS_IN_BATCHES = range(40, 400), range(8, 40)
_ANSWERING = ("message", "fallback_message")
_TEXT = _TALE * (2 + _LENGTHS.stop * CHARACTERS_PER_TOKEN // len(_TALE))


def new_id(prefix: str) -> str:
    """Return an identifier that nothing else has."""
    return f"{prefix}_{uuid.uuid4().hex[:24]}"


@dataclass(frozen=True, slots=True)
class Iteration:
    """One entry of `usage.iterations`. `free` ones are listed, not billed."""

    type: str
    tokens: Tokens
    model: str | None = None
    free: bool = False

    def as_usage(self) -> dict[str, Any]:
        """Return the entry as the wire has it."""
        named = {} if self.model is None else {"model": self.model}
        return {"type": self.type, **named, **usage_counts(self.tokens)}


@dataclass(frozen=True, slots=True)
class Portion:
    """What one model did for a reply. One portion `answers`: the request is counted there."""

    model: str
    tokens: Tokens
    free: bool
    answers: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of Claude's.

    `tokens` are the top-level counts. `growth` of the input tokens come to light only while
    streaming. `start_model` is what `message_start` names when another model ends up serving.
    """

    id: str
    model: str
    content: Sequence[dict[str, Any]]
    tokens: Tokens
    stop_reason: str
    service_tier: str = "standard"
    inference_geo: str = "global"
    speed: str = "standard"
    iterations: Sequence[Iteration] = ()
    growth: int = 0
    start_model: str | None = None

    @property
    def stop_details(self) -> dict[str, Any] | None:
        """What the wire tells about a refusal."""
        if self.stop_reason != "refusal":
            return None
        return {"type": "refusal", "category": "general_harms", "explanation": None}

    @property
    def portions(self) -> tuple[Portion, ...]:
        """Who did what. Free: a refusal before output, and hops that declined before any."""
        refused = self.stop_reason == "refusal" and not self.content
        if not self.iterations:
            return (Portion(self.model, self.tokens, refused, answers=True),)
        answering = [each for each in self.iterations if each.type in _ANSWERING][-1]
        return tuple(
            Portion(each.model or self.model, each.tokens, refused or each.free, each is answering)
            for each in self.iterations
        )

    @property
    def served(self) -> Tokens:
        """Every token that was used, billed or not."""
        return sum((each.tokens for each in self.portions), Tokens())

    @property
    def billable(self) -> Tokens:
        """What Claude bills."""
        return sum((each.tokens for each in self.portions if not each.free), Tokens())

    def usage(self) -> dict[str, Any]:
        """Return the usage object of a whole reply."""
        usage: dict[str, Any] = {
            **usage_counts(self.tokens),
            "output_tokens_details": {"thinking_tokens": 0},
            "server_tool_use": None,
            "service_tier": self.service_tier,
            "inference_geo": self.inference_geo,
            "speed": self.speed,
        }
        if self.iterations:
            usage["iterations"] = [each.as_usage() for each in self.iterations]
        return usage

    def message(self) -> dict[str, Any]:
        """Return the message object of a whole reply."""
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": list(self.content),
            "stop_reason": self.stop_reason,
            "stop_sequence": None,
            "stop_details": self.stop_details,
            "usage": self.usage(),
        }


def usage_counts(tokens: Tokens) -> dict[str, Any]:
    """Return the counts as a usage object names them; the split and its sum both appear."""
    return {
        "input_tokens": tokens.input,
        "cache_creation_input_tokens": tokens.cache_write_5m + tokens.cache_write_1h,
        "cache_read_input_tokens": tokens.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": tokens.cache_write_5m,
            "ephemeral_1h_input_tokens": tokens.cache_write_1h,
        },
        "output_tokens": tokens.output,
    }


@dataclass(frozen=True, slots=True)
class Draft:
    """A plain reply before it is written; `offset` is where in the tale its text begins."""

    model: str
    tokens: Tokens
    offset: int
    stop_reason: str
    service_tier: str
    inference_geo: str
    speed: str

    def write(self, message_id: str) -> Reply:
        """Return the reply, the same each time."""
        length = self.tokens.output * CHARACTERS_PER_TOKEN
        text = _TEXT[self.offset : self.offset + length]
        return Reply(
            model=self.model,
            content=[{"type": "text", "text": text}] if text else [],
            tokens=self.tokens,
            stop_reason=self.stop_reason,
            service_tier=self.service_tier,
            inference_geo=self.inference_geo,
            speed=self.speed,
            id=message_id,
        )


def draft_reply(
    body: MessagesBody, model: str, inference_geo: str, prompt: Tokens, *, batched: bool
) -> Draft:
    """Decide the answer to a request whose input was counted already; in batches a short one."""
    seed = _seed(body)
    lengths = _LENGTHS_IN_BATCHES if batched else _LENGTHS
    wanted = lengths[int.from_bytes(seed[:4], "big") % len(lengths)]
    return Draft(
        model=model,
        tokens=prompt + Tokens(output=min(wanted, body.max_tokens)),
        offset=int.from_bytes(seed[4:8], "big") % len(_TALE),
        stop_reason="max_tokens" if wanted > body.max_tokens else "end_turn",
        service_tier="batch" if batched else "standard",
        inference_geo=inference_geo,
        speed=body.speed or "standard",
    )


def _seed(body: MessagesBody) -> bytes:
    """Return what the prompt alone decides: equal prompts are answered equally."""
    prompt = json.dumps([body.model, body.system, body.messages], separators=(",", ":"))
    return hashlib.sha256(prompt.encode()).digest()
