"""Rating: what one reply cost, from the reply itself.

Every price decision uses what Claude reported having served (model, tier, geography, speed, usage)
and the instant of serving, never what was asked for. The result is either exact, line by line, or
it says in words why there is no price; no path leads from an unknown to a number.

Prompt-length tiers are decided per portion (`pricing.usage`), on its whole prompt: one above a
threshold costs more in every kind, while several that only add up to more do not (facts on Claude,
'Ranked traps', 4).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, cast

from pydantic import TypeAdapter

from tallystick.contracts import BillLine
from tallystick.money import EXACT
from tallystick.pricing.book import ONE, NoPriceError, PriceBook, price_book
from tallystick.pricing.tokens import TOKEN_KINDS, TokenCounts, TokenKind
from tallystick.pricing.usage import Portion, UnreadableError, Usage, ran_code, read_usage

_Object = Mapping[str, Any]
Status = Literal["priced", "not_billed", "unpriced", "indeterminate"]

CUT_SHORT = frozenset({"max_tokens", "model_context_window_exceeded"})
"""Stop reasons of replies that are partial."""
_KIND_NAMES = tuple(kind.value for kind in TOKEN_KINDS)
_Sold = tuple[str, str, int, Decimal]
"""Kind, model, quantity, dollars each: a bill line before it has its amount."""
_LINES = TypeAdapter(tuple[BillLine, ...])
"""Makes all lines of a bill in one call, which costs two thirds of making them one by one."""
_ZERO = Decimal(0)
_NOTHING = TokenCounts()


@dataclass(frozen=True, slots=True)
class Rating:
    """What a reply cost, or why that is not known.

    `cost_usd` is the provider's price, unrounded, and exactly the sum of `lines`; it is None unless
    the status is `priced` (or `not_billed`: zero). `tokens` is everything billed; for a reply
    that is not billed, not priced or not finished it is what the reply reported. `multiplier` is
    what batch, geography and speed multiplied each token price by. `at_least_usd` is set for an
    `indeterminate` reply whose seen part has a price: it cost that or more.
    """

    status: Status
    at: datetime
    book_version: str
    cost_usd: Decimal | None = None
    lines: tuple[BillLine, ...] = ()
    reason: str = ""
    tokens: TokenCounts = _NOTHING
    partial: bool = False
    batch: bool = False
    multiplier: Decimal = ONE
    at_least_usd: Decimal | None = None


def rate(
    message: Mapping[str, Any],
    *,
    at: datetime,
    batch: bool = False,
    indeterminate: bool = False,
    book: PriceBook | None = None,
) -> Rating:
    """Price one Messages API reply.

    Args:
        message: the reply as JSON, with the raw usage object.
        at: when Claude finished serving it (for a batch, when the batch ended); aware.
        batch: whether it is an item of a Message Batch; also read from `usage.service_tier`.
        indeterminate: whether the caller knows that the reply was cut off.
        book: another book than the one that ships.

    Raises:
        ValueError: for a naive `at`. Nothing in `message` raises, whatever it holds.
    """
    if at.tzinfo is None:
        raise ValueError("the instant of a reply needs its offset from UTC")
    book = book or price_book()
    stop_reason = message.get("stop_reason")
    if indeterminate or stop_reason is None:
        return _rate_cut(message, at, batch, book)
    partial = isinstance(stop_reason, str) and stop_reason in CUT_SHORT
    tokens = _NOTHING
    try:
        if not isinstance(stop_reason, str):
            raise UnreadableError("stop_reason is not text")  # noqa: TRY301
        reply = _Reply(message)
        tokens = _total(reply.read.portions, reply.read.web_searches)
        if stop_reason == "refusal" and at >= book.refusals_free_from and reply.without_output:
            return Rating(
                status="not_billed",
                at=at,
                book_version=book.version,
                cost_usd=_ZERO,
                reason="Claude refused before any output, which is not billed",
                tokens=_total(reply.read.portions + reply.read.declined, 0),
                batch=batch,
            )
        batch = batch or reply.service_tier == "batch"
        cost, lines, multiplier = _price(reply, at, batch, book)
    except (UnreadableError, NoPriceError) as error:
        return Rating(
            status="unpriced",
            at=at,
            book_version=book.version,
            reason=str(error),
            tokens=tokens,
            partial=partial,
            batch=batch,
        )
    return Rating(
        status="priced",
        at=at,
        book_version=book.version,
        cost_usd=cost,
        lines=lines,
        tokens=tokens,
        partial=partial,
        batch=batch,
        multiplier=multiplier,
    )


class _Reply:
    """The parts of a reply that decide its price, each of the shape it must have."""

    __slots__ = ("content", "inference_geo", "model", "read", "service_tier", "speed", "usage")

    def __init__(self, message: Mapping[str, Any]) -> None:
        model = message.get("model")
        if not isinstance(model, str) or not model:
            raise UnreadableError("model is missing")
        usage = message.get("usage")
        if not isinstance(usage, dict):
            raise UnreadableError("usage is missing")
        usage = cast("_Object", usage)
        content = message.get("content")
        if content is not None and not isinstance(content, list):
            raise UnreadableError("content is not a list")
        self.model = model
        self.usage = usage
        self.content = cast("list[Any] | None", content)
        self.service_tier = _word(usage, "service_tier")
        self.inference_geo = _word(usage, "inference_geo")
        self.speed = _word(usage, "speed")
        self.read: Usage = read_usage(usage, model)

    @property
    def without_output(self) -> bool:
        """Whether no output was produced; the marks between fallback attempts are not output."""
        if self.content is None:
            raise UnreadableError("content is missing, so the refusal may have had output")
        return all(
            isinstance(block, dict) and cast("_Object", block).get("type") == "fallback"
            for block in self.content
        )


def _word(usage: Mapping[str, Any], name: str) -> str | None:
    value = usage.get(name)
    if value is not None and not isinstance(value, str):
        raise UnreadableError(f"usage.{name} is not text")
    return value


def _price(
    reply: _Reply, at: datetime, batch: bool, book: PriceBook
) -> tuple[Decimal, tuple[BillLine, ...], Decimal]:
    us, fast = _modifiers(reply)
    if ran_code(reply.usage, reply.content or ()):
        raise NoPriceError("code execution is billed by container time, not told in a reply")
    if fast and any(portion.model != reply.model for portion in reply.read.portions):
        raise NoPriceError("whether speed 'fast' holds for the reply's other models is not known")
    if not reply.read.portions:
        raise UnreadableError("usage.iterations has no attempt that served the reply")
    multiplier = ONE
    sold: list[_Sold] = []
    for name, counts in reply.read.portions:
        model = book.model(name)
        multiplier = book.multiplier(model, at, batch=batch, us=us, fast=fast)
        units = model.tier(at, counts.prompt).units(multiplier)
        sold += [
            (kind, name, quantity, unit)
            for kind, quantity, unit in zip(_KIND_NAMES, counts, units, strict=False)
            if quantity
        ]
    if len(reply.read.portions) > 1:
        sold = _merge(sold)
    if reply.read.web_searches:
        search = TokenKind.WEB_SEARCH.value
        sold.append((search, reply.model, reply.read.web_searches, book.web_search_usd))
    cost = _ZERO
    lines: list[dict[str, object]] = []
    for kind, name, quantity, unit in sold:
        amount = EXACT.multiply(quantity, unit)
        cost = EXACT.add(cost, amount)
        lines.append(
            {
                "kind": kind,
                "model": name,
                "quantity": quantity,
                "unit_usd": unit,
                "amount_usd": amount,
            }
        )
    return cost, _LINES.validate_python(lines), multiplier


def _merge(sold: list[_Sold]) -> list[_Sold]:
    """Make one line of what several portions have of the same kind at the same price."""
    merged: dict[tuple[str, str, Decimal], int] = {}
    for kind, name, quantity, unit in sold:
        merged[kind, name, unit] = merged.get((kind, name, unit), 0) + quantity
    return [(kind, name, quantity, unit) for (kind, name, unit), quantity in merged.items()]


def _modifiers(reply: _Reply) -> tuple[bool, bool]:
    tier, geo, speed = reply.service_tier, reply.inference_geo, reply.speed
    if tier == "priority":
        raise NoPriceError("service_tier 'priority' is priced by contract")
    if tier not in (None, "standard", "batch"):
        raise NoPriceError(f"service_tier {tier[:100]!r} has no established price")
    if geo not in (None, "global", "not_available", "us"):
        raise NoPriceError(f"inference_geo {geo[:100]!r} has no established price")
    if speed not in (None, "standard", "fast"):
        raise NoPriceError(f"speed {speed[:100]!r} has no established price")
    return geo == "us", speed == "fast"


def _rate_cut(message: Mapping[str, Any], at: datetime, batch: bool, book: PriceBook) -> Rating:
    """Rate a reply that was cut off: what was seen is a lower bound, never a bill."""
    reason = "the reply was cut off before its stop reason, so its usage is only a lower bound"
    tokens = _NOTHING
    at_least = None
    try:
        reply = _Reply(message)
        tokens = _total(reply.read.portions, reply.read.web_searches)
        batch = batch or reply.service_tier == "batch"
        at_least = _price(reply, at, batch, book)[0]
    except (UnreadableError, NoPriceError) as error:
        reason = f"{reason}; {error}"
    return Rating(
        status="indeterminate",
        at=at,
        book_version=book.version,
        reason=reason,
        tokens=tokens,
        batch=batch,
        at_least_usd=at_least,
    )


def _total(portions: tuple[Portion, ...], web_searches: int) -> TokenCounts:
    if len(portions) == 1:
        counts = portions[0].counts
    else:
        counts = _NOTHING
        for portion in portions:
            counts = counts.plus(portion.counts)
    return counts._replace(web_search=web_searches) if web_searches else counts
