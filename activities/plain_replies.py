"""Ordinary replies of a batch, written for the ledger as fast as they can be.

A batch has 100,000 replies of the same few shapes: text, from one model, with counts and nothing
unusual. For those all that rating and charging decide is the same from reply to reply but for five
counts, so it is decided once for each model and prompt-length tier, by the price book and the
customer's terms, and the rest is whole numbers times whole numbers. Whatever is not ordinary in any
way is left to `reply_columns`, which this must agree with to the letter; a test holds it to that.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, cast

from pydantic_core import to_json

from tallystick.ledger.terms import TermsInForce
from tallystick.money import times
from tallystick.plans import PlanTerms, typical_costs
from tallystick.pricing import NoPriceError, PriceBook, TokenCounts, price_book
from tallystick.pricing.book import Model, Tier
from tallystick.pricing.explain import priced_in_words
from tallystick.pricing.rating import CUT_SHORT
from tallystick.pricing.tokens import TOKEN_KINDS
from tallystick.pricing.usage import MAX_COUNT

_USAGE = frozenset(
    {
        "input_tokens",
        "output_tokens",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
        "cache_creation",
        "server_tool_use",
        "service_tier",
        "inference_geo",
        "speed",
        "output_tokens_details",
    }
)
_LIFETIMES = ("5m", "1h")
_GLOBAL = (None, "global", "not_available")
_STANDARD = (None, "standard")
_TEXT_BLOCK = {"type", "text"}
_Counts = tuple[int, int, int, int, int]
"""In the order of `TOKEN_KINDS`."""
_CACHE_KINDS = range(2, 5)
_NANO_PLACES = 9


class PlainReply(NamedTuple):
    """What there is to say of an ordinary reply."""

    message_id: str
    model: str
    stop_reason: str
    response_chars: int
    blocks: int
    usage: Mapping[str, Any]
    counts: _Counts


def read_plain(message: Mapping[str, Any]) -> PlainReply | None:
    """Read a reply, if it is an ordinary one of a batch; None where there is any doubt."""
    usage, content = message.get("usage"), message.get("content")
    message_id, stop_reason = message.get("id"), message.get("stop_reason")
    model = message.get("model")
    if not (
        isinstance(usage, dict)
        and isinstance(content, list)
        and isinstance(message_id, str)
        and isinstance(stop_reason, str)
        and isinstance(model, str)
        and message_id.isidentifier()
        and stop_reason.isidentifier()
        and stop_reason != "refusal"
        and message.get("type") == "message"
        and message.get("role") == "assistant"
    ):
        return None
    usage = cast("Mapping[str, Any]", usage)
    counts = _counts(usage)
    if counts is None:
        return None
    chars = 0
    blocks = cast("list[object]", content)
    for block in blocks:
        if not isinstance(block, dict) or block.keys() != _TEXT_BLOCK or block["type"] != "text":
            return None
        text = cast("dict[str, object]", block)["text"]
        if not isinstance(text, str):
            return None
        chars += len(text)
    return PlainReply(message_id, model, stop_reason, chars, len(blocks), usage, counts)


def _counts(usage: Mapping[str, Any]) -> _Counts | None:
    split: object = usage.get("cache_creation")
    if (
        not isinstance(split, dict)
        or usage.get("server_tool_use") is not None
        or usage.get("service_tier") != "batch"
        or usage.get("inference_geo") not in _GLOBAL
        or usage.get("speed") not in _STANDARD
        or not usage.keys() <= _USAGE
    ):
        return None
    writes = cast("Mapping[str, object]", split)
    counts = (
        usage.get("input_tokens"),
        usage.get("output_tokens"),
        writes.get("ephemeral_5m_input_tokens"),
        writes.get("ephemeral_1h_input_tokens"),
        usage.get("cache_read_input_tokens"),
    )
    for value in counts:
        if type(value) is not int or not 0 <= value <= MAX_COUNT:
            return None
    whole = cast("_Counts", counts)
    agree = usage.get("cache_creation_input_tokens") == whole[2] + whole[3]
    return whole if agree and len(writes) == len(_LIFETIMES) else None


class PlainReplies:
    """Writes what ordinary replies leave in their records, as fields of COPY's text format.

    Args:
        agreed: the customer's terms.
        at: when the batch ended; the instant of all its replies.
    """

    def __init__(self, agreed: TermsInForce, at: datetime):
        self._terms = agreed.terms
        self._at = at
        self._book = price_book()
        self._models: dict[str, _ModelPrices | None] = {}

    def fields(self, message: Mapping[str, Any]) -> str | None:
        """Return the fields from `message_id` on; None for a reply that is not ordinary."""
        reply = read_plain(message)
        if reply is None:
            return None
        if reply.model not in self._models:
            self._models[reply.model] = self._prices(reply.model)
        prices = self._models[reply.model]
        return None if prices is None else self._write(reply, prices.tier(reply.counts))

    def _prices(self, name: str) -> "_ModelPrices | None":
        try:
            model = self._book.model(name)
            return _ModelPrices(self._book, model, name, self._terms, self._at)
        except NoPriceError:
            return None

    def _write(self, reply: PlainReply, tier: "_TierPrices | None") -> str | None:
        if tier is None:
            return None
        counts, usage = reply.counts, to_json(reply.usage).decode()
        cost = charge = 0
        lines: list[str] = []
        for quantity, kind in zip(counts, tier.kinds, strict=True):
            if quantity:
                amount = quantity * kind.unit
                cost += amount
                charge += quantity * kind.charged
                lines.append(
                    f'{kind.begins}{quantity}{kind.unit_text}{_plain(amount, tier.places)}"}}'
                )
        content = ",".join(['{"type":"text"}'] * reply.blocks)
        partial = reply.stop_reason in CUT_SHORT
        explanation = self._explanation(reply, tier, cost, partial=partial)
        return "\t".join(
            (
                reply.message_id,
                reply.model,
                reply.stop_reason,
                "t" if partial else "f",
                str(reply.response_chars),
                *map(str, counts),
                "0",
                f'{{"id":"{reply.message_id}","type":"message","role":"assistant","model":'
                f'"{reply.model}","stop_reason":"{reply.stop_reason}","usage":{usage},'
                f'"content":[{content}]}}'.replace("\\", "\\\\"),
                "priced",
                "",
                self._book.version,
                _plain(cost, tier.places),
                str(_half_even(charge, tier.charge_places - _NANO_PLACES)),
                f"[{','.join(lines)}]",
                explanation,
            )
        )

    def _explanation(
        self, reply: PlainReply, tier: "_TierPrices", cost: int, *, partial: bool
    ) -> str:
        counts = reply.counts
        input_unit = tier.kinds[0].unit
        saved = sum(counts[i] * (input_unit - tier.kinds[i].unit) for i in _CACHE_KINDS)
        cost_usd = Decimal(cost).scaleb(-tier.places)
        said = priced_in_words(
            TokenCounts(*counts),
            cost_usd=cost_usd,
            answer_usd=Decimal(counts[1] * tier.kinds[1].unit).scaleb(-tier.places),
            searches_usd=Decimal(0),
            cache_saved_usd=Decimal(saved).scaleb(-tier.places),
            batch_saved_usd=cost_usd / self._book.batch_multiplier - cost_usd,
            partial=partial,
        )
        return f"{said} {tier.typical}".rstrip()


class _KindPrice(NamedTuple):
    """One kind of token: unit price and unit charge as whole numbers, and the text of its line."""

    unit: int
    charged: int
    begins: str
    unit_text: str


class _TierPrices(NamedTuple):
    """One model's prices for prompts of one range; amounts have so many decimal places."""

    kinds: tuple[_KindPrice, ...]
    places: int
    charge_places: int
    typical: str


class _ModelPrices:
    """One model's prices at one instant, under one customer's terms."""

    def __init__(self, book: PriceBook, model: Model, name: str, terms: PlanTerms, at: datetime):
        multiplier = book.multiplier(model, at, batch=True, us=False, fast=False)
        typical = typical_costs(name, at, terms)
        self._tiers = [
            (
                tier.prompt_over,
                None if tier.missing else _tier(tier, multiplier, name, terms, typical),
            )
            for tier in reversed(model.tiers_at(at))
        ]

    def tier(self, counts: _Counts) -> _TierPrices | None:
        """Return the prices of a prompt; None where it has no established price."""
        if len(self._tiers) > 1:
            prompt = TokenCounts(*counts).prompt
            for prompt_over, prices in self._tiers:
                if prompt > prompt_over:
                    return prices
        return self._tiers[-1][1]


def _tier(
    tier: Tier, multiplier: Decimal, name: str, terms: PlanTerms, typical: str
) -> _TierPrices:
    units = tier.units(multiplier)
    charged = [
        times(terms.factor(kind), unit) for kind, unit in zip(TOKEN_KINDS, units, strict=True)
    ]
    places, charge_places = _places(units), max(_places(charged), _NANO_PLACES)
    return _TierPrices(
        kinds=tuple(
            _KindPrice(
                unit=_whole(unit, places),
                charged=_whole(amount, charge_places),
                begins=f'{{"kind":"{kind}","model":"{name}","quantity":',
                unit_text=f',"unit_usd":"{_plain(_whole(unit, places), places)}","amount_usd":"',
            )
            for kind, unit, amount in zip(TOKEN_KINDS, units, charged, strict=True)
        ),
        places=places,
        charge_places=charge_places,
        typical=typical,
    )


# --- Whole numbers for Decimals -------------------------------------------------------------------
def _places(amounts: Iterable[Decimal]) -> int:
    return max(-cast("int", amount.as_tuple().exponent) for amount in amounts)


def _whole(amount: Decimal, places: int) -> int:
    return int(amount.scaleb(places))


def _plain(whole: int, places: int) -> str:
    """Write what `money.plain` writes."""
    if places <= 0:
        return str(whole)
    digits = str(whole).rjust(places + 1, "0")
    return f"{digits[:-places]}.{digits[-places:]}".rstrip("0").rstrip(".")


def _half_even(whole: int, places: int) -> int:
    """Round as `money.to_nano_usd` does."""
    unit = 10**places
    quotient, rest = divmod(whole, unit)
    return quotient + (2 * rest > unit or (2 * rest == unit and quotient % 2 == 1))
