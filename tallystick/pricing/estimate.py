"""What a request may cost, before it is sent: from its size alone, without a network call.

Bounds, not predictions. An upper bound is one token per UTF-8 byte, which a byte-level tokenizer
cannot exceed; a lower bound is one token per eight characters of text that Claude is sure to read.
Where both fall on one side of a limit the size has decided; between them only Claude's count_tokens
can (facts on Claude, 'count_tokens'). A document whose text is not in the request has no upper
bound but the context window, unless somebody has counted its pages: those of PDFs have no bound
either, but a length that they hardly ever exceed. Estimates serve guards and quotes, never a bill
(requirement 10).

As in count_tokens, only the first sampling call counts: what server tools fetch comes on top.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, cast

from tallystick.money import EXACT, total
from tallystick.pricing.book import PriceBook, Tier, price_book
from tallystick.pricing.tokens import TOKEN_KINDS, TokenKind

CONTEXT_WINDOW = 1_000_000
"""No model takes a longer prompt."""
CHARACTERS_PER_TOKEN_AT_MOST = 8
BYTES_PER_TOKEN_LIKELY = 3
"""English takes three to four; models from 4.7 on make about 30 % more tokens than older ones."""
IMAGE_TOKENS_LIKELY = 1_600
IMAGE_TOKENS_AT_MOST = 5_000
"""Claude scales larger images down; 4,005 were measured for 12 megapixels (*third-party*)."""
DOCUMENT_TOKENS_LIKELY = 30_000
PDF_PAGE_TOKENS_LIKELY = 2_400
"""1,600 for a scan, 2,350 for text and 2,480 for a table were measured with 5.5 models
(*third-party*: huggingface.co/datasets/JOHNISKING/pdf-token-cost)."""
PDF_PAGE_TOKENS_AT_MOST = 8_000
"""Each page is read twice: as text, of 1,500 to 3,000 tokens [build-with-claude/pdf-support], and
as an image (`IMAGE_TOKENS_AT_MOST`). A page in very small print may have more."""
TOOL_TOKENS_AT_MOST = 3_000
"""What Claude adds for one tool beside the definition that the request holds."""
BLOCK_TOKENS_AT_MOST = 16
"""What Claude adds around one turn or block."""
NEAR_PERCENT = 80
"""From this share of a threshold on, a warning is due."""

_TEXT_FIELDS = ("text", "content", "system", "description")


class Estimate(NamedTuple):
    """Input tokens of a request: not less than `low`, not more than `high`."""

    low: int
    likely: int
    high: int


@dataclass(frozen=True, slots=True)
class Quote:
    """What a request would cost, in US dollars at the provider's price.

    The true cost lies between `cost_low_usd` (an empty answer) and `cost_high_usd` (an answer of
    `max_tokens`, the prompt at the dearest price it can have). `cache_saves_usd` is what each
    repeat of the same prompt would save if it were read from the cache, `cache_costs_usd` what
    writing it there first costs extra, both on the likely prompt. `batch_saves_usd` is what the
    batch price would save of `cost_high_usd`; None for what is a batch already or cannot be one.
    What Claude's own tools fetch and cost comes on top.
    """

    model: str
    input_tokens: Estimate
    max_tokens: int
    cost_low_usd: Decimal
    cost_high_usd: Decimal
    cache_saves_usd: Decimal
    cache_costs_usd: Decimal
    batch_saves_usd: Decimal | None
    warnings: tuple[str, ...]
    book_version: str


def estimate_input_tokens(params: Mapping[str, Any], *, pdf_pages: int | None = None) -> Estimate:
    """Bound the input tokens of a Messages API body by its size. Never raises on JSON.

    Args:
        params: the body.
        pdf_pages: how many pages all PDFs in it have, where they were counted.
    """
    return _Size(params).estimate(pdf_pages)


def prompt_chars(params: Mapping[str, Any]) -> int:
    """Return the length of the prompt: the characters of system, tools and messages as JSON."""
    return sum(
        len(json.dumps(params[part], ensure_ascii=False, separators=(",", ":")))
        for part in ("system", "tools", "messages")
        if part in params
    )


def dearest_input_kind(params: Mapping[str, Any]) -> TokenKind:
    """Return the dearest kind that the prompt of this body can be billed as.

    Claude writes to the cache where a `cache_control` asks for it, and for 5 minutes between the
    steps of its own tools (facts on Claude, 'Streaming').
    """
    return _Size(params).dearest


def estimate_cost(
    model: str,
    input_tokens: int,
    max_tokens: int,
    at: datetime,
    *,
    input_kind: TokenKind = TokenKind.INPUT,
    batch: bool = False,
    inference_geo: str | None = None,
    speed: str | None = None,
    book: PriceBook | None = None,
) -> Decimal:
    """Return what a request costs at the most, in US dollars.

    Args:
        model: the id asked for.
        input_tokens: the whole prompt.
        max_tokens: the longest answer.
        at: when it would be served.
        input_kind: what the prompt is priced as; `dearest_input_kind` tells.
        batch: whether it goes through Message Batches.
        inference_geo: as in the request; a workspace's default counts too.
        speed: as in the request.
        book: another book than the one that ships.

    Raises:
        NoPriceError: when the book has no price for this.
    """
    book = book or price_book()
    found = book.model(model)
    multiplier = book.multiplier(
        found, at, batch=batch, us=inference_geo == "us", fast=speed == "fast"
    )
    # A length that rating has no price for still needs a bound: the dearest price there is.
    priced = [tier for tier in found.tiers_at(at) if not tier.missing]
    reached = [tier for tier in priced if tier.prompt_over < max(input_tokens, 1)]
    units = reached[-1].units(multiplier)
    return total(
        [
            EXACT.multiply(input_tokens, _unit(units, input_kind)),
            EXACT.multiply(max_tokens, _unit(units, TokenKind.OUTPUT)),
        ]
    )


def cliff_warnings(
    model: str, input_tokens: int, at: datetime, *, book: PriceBook | None = None
) -> tuple[str, ...]:
    """Warn of prompt lengths above which the whole request costs more, near them and past them.

    Raises:
        NoPriceError: when the book does not price the model.
    """
    tiers = (book or price_book()).model(model).tiers_at(at)
    return tuple(
        _cliff(model, input_tokens, tiers[0], tier)
        for tier in tiers[1:]
        if input_tokens * 100 >= tier.prompt_over * NEAR_PERCENT
    )


def quote(
    params: Mapping[str, Any],
    at: datetime,
    *,
    input_tokens: int | None = None,
    pdf_pages: int | None = None,
    batch: bool = False,
    book: PriceBook | None = None,
) -> Quote:
    """Quote a Messages API body without sending it.

    Args:
        params: the body; `model` and `max_tokens` must be there.
        at: when it would be served.
        input_tokens: Claude's own count of the prompt, where the caller has asked for it.
        pdf_pages: how many pages all PDFs in the body have, where they were counted.
        batch: whether it goes through Message Batches.
        book: another book than the one that ships.

    Raises:
        NoPriceError: when the book has no price for this.
        ValueError: when the body lacks its model or its `max_tokens`.
    """
    book = book or price_book()
    model, max_tokens = params.get("model"), params.get("max_tokens")
    if not isinstance(model, str):
        raise ValueError("params.model: should be text")  # noqa: TRY004
    if type(max_tokens) is not int or max_tokens < 0:
        raise ValueError("params.max_tokens: should be a whole number")
    size = _Size(params)
    tokens = (
        size.estimate(pdf_pages)
        if input_tokens is None
        else Estimate(input_tokens, input_tokens, input_tokens)
    )

    def cost(prompt: int, answer: int, kind: TokenKind, *, in_batch: bool = batch) -> Decimal:
        return estimate_cost(
            model,
            prompt,
            answer,
            at,
            input_kind=kind,
            batch=in_batch,
            inference_geo=params.get("inference_geo"),
            speed=params.get("speed"),
            book=book,
        )

    high = cost(tokens.high, max_tokens, size.dearest)
    uncached = cost(tokens.likely, 0, TokenKind.INPUT)
    in_batch: Decimal | None = None
    if not batch and params.get("speed") != "fast":
        in_batch = cost(tokens.high, max_tokens, size.dearest, in_batch=True)
    return Quote(
        model=model,
        input_tokens=tokens,
        max_tokens=max_tokens,
        cost_low_usd=cost(tokens.low, 0, TokenKind.CACHE_READ if size.cached else TokenKind.INPUT),
        cost_high_usd=high,
        cache_saves_usd=uncached - cost(tokens.likely, 0, TokenKind.CACHE_READ),
        cache_costs_usd=cost(tokens.likely, 0, TokenKind.CACHE_WRITE_5M) - uncached,
        batch_saves_usd=None if in_batch is None else high - in_batch,
        warnings=cliff_warnings(model, tokens.likely, at, book=book),
        book_version=book.version,
    )


def _unit(units: tuple[Decimal, ...], kind: TokenKind) -> Decimal:
    return units[TOKEN_KINDS.index(kind)]


def _cliff(model: str, tokens: int, lowest: Tier, tier: Tier) -> str:
    where = "is over" if tokens > tier.prompt_over else "comes near"
    prompt = f"the prompt of about {tokens:,} tokens {where} {tier.prompt_over:,} tokens, above"
    if tier.missing:
        return f"{prompt} which {model} has no established price"
    times = round(tier.standard[0] / lowest.standard[0], 1).normalize()
    return f"{prompt} which {model} costs up to {times:f} times as much, the answer included"


class _Size:
    """One walk over a body: how much text, how many images, and what hides its length."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.bytes = 0
        self.sure_characters = 0
        self.blocks = 0
        self.images = 0
        self.pdfs = 0
        """Those whose pages can be counted: they are in the body."""
        self.documents = 0
        self.dearest = TokenKind.INPUT
        self.tools = 0
        self._tools(params.get("tools"))
        self.hidden = bool(params.get("mcp_servers") or params.get("container"))
        self._cache_control(params.get("cache_control"))
        self._walk(params)

    @property
    def cached(self) -> bool:
        """Whether some of the prompt may come from the cache."""
        return self.dearest is not TokenKind.INPUT

    def estimate(self, pdf_pages: int | None = None) -> Estimate:
        pages, documents = pdf_pages or 0, self.documents
        if pdf_pages is None:
            documents += self.pdfs
        high = (
            self.bytes
            + self.blocks * BLOCK_TOKENS_AT_MOST
            + self.images * IMAGE_TOKENS_AT_MOST
            + self.tools * TOOL_TOKENS_AT_MOST
            + pages * PDF_PAGE_TOKENS_AT_MOST
        )
        if pages:
            high = min(high, CONTEXT_WINDOW)
        if documents or self.hidden:
            high = CONTEXT_WINDOW
        low = self.sure_characters // CHARACTERS_PER_TOKEN_AT_MOST
        likely = (
            self.bytes // BYTES_PER_TOKEN_LIKELY
            + self.images * IMAGE_TOKENS_LIKELY
            + pages * PDF_PAGE_TOKENS_LIKELY
            + documents * DOCUMENT_TOKENS_LIKELY
        )
        # More than the longest prompt is still more than any limit: Claude will refuse it.
        high = max(high, low)
        return Estimate(low, min(max(likely, low), high), high)

    def _walk(self, params: Mapping[str, Any]) -> None:
        left: list[tuple[str, object]] = [(name, value) for name, value in params.items()]
        while left:
            name, value = left.pop()
            if isinstance(value, str):
                self._text(name, value)
            elif isinstance(value, Mapping):
                block = cast("Mapping[str, Any]", value)
                self.blocks += 1
                self._cache_control(block.get("cache_control"))
                if not self._attachment(block):
                    self.bytes += sum(len(key) for key in block)
                    left.extend(block.items())
            elif isinstance(value, list):
                left.extend((name, item) for item in cast("list[object]", value))
            else:
                self.bytes += len(str(value))

    def _tools(self, tools: object) -> None:
        for tool in cast("list[object]", tools) if isinstance(tools, list) else ():
            self.tools += 1
            kind = (
                cast("Mapping[str, Any]", tool).get("type") if isinstance(tool, Mapping) else None
            )
            if kind not in (None, "custom"):
                self.dearest = TokenKind.CACHE_WRITE_5M

    def _text(self, name: str, text: str) -> None:
        self.bytes += len(text.encode("utf-8", "surrogatepass"))
        if name in _TEXT_FIELDS:
            self.sure_characters += len("".join(text.split()))

    def _attachment(self, block: Mapping[str, Any]) -> bool:
        """Count a block whose length in tokens is not its length in bytes."""
        source = block.get("source")
        if not isinstance(source, Mapping):
            return False
        kind = cast("Mapping[str, Any]", source).get("type")
        if block.get("type") == "image":
            self.images += 1
            return True
        if block.get("type") == "document" and kind in ("base64", "url", "file"):
            if kind == "base64":
                self.pdfs += 1
            else:
                self.documents += 1
            return True
        return False

    def _cache_control(self, control: object) -> None:
        if not isinstance(control, Mapping):
            return
        if cast("Mapping[str, Any]", control).get("ttl") == "1h":
            self.dearest = TokenKind.CACHE_WRITE_1H
        elif self.dearest is TokenKind.INPUT:
            self.dearest = TokenKind.CACHE_WRITE_5M
