"""The book beside an independent catalogue: every difference as a row, explained or not.

Each price is asked of `genai-prices` through its own public calculation, at the last instant of
every span of each model's life, for every tier and for standard, batch and fast prices. Reasons for
known differences are data (`data/known_differences.toml`); a row without one means that one of the
two books is wrong and a person has to look (facts on Claude, 'Prices', 'Own a price book').
"""

import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from importlib.resources import files
from typing import Any, Literal

from tallystick.money import EXACT
from tallystick.pricing.book import (
    MILLION,
    ONE,
    THOUSAND,
    Model,
    NoPriceError,
    PriceBook,
    price_book,
)
from tallystick.pricing.tokens import TOKEN_KINDS, TokenKind

Mode = Literal["standard", "batch", "fast"]
Catalogue = Callable[[str, TokenKind, int, datetime, Mode], Decimal | None]
"""Model, kind, prompt length, instant and mode to US dollars per million (or thousand searches)."""

_INSTANT = timedelta(microseconds=1)
_CONTEXT: Mapping[Mode, dict[str, str]] = {
    "standard": {},
    "batch": {"processing": "batch"},
    "fast": {"speed": "fast"},
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One price on which two books differ, in dollars per million tokens (or thousand searches).

    `theirs` is None when the other book has no price; `reason` is None when nobody knows why.
    """

    model: str
    kind: TokenKind
    mode: Mode
    prompt_over: int
    at: datetime
    ours: Decimal
    theirs: Decimal | None = None
    reason: str | None = None


def compare(
    at: datetime, *, book: PriceBook | None = None, catalogue: Catalogue | None = None
) -> tuple[Difference, ...]:
    """Return every price of the book that the catalogue does not share.

    Args:
        at: the end of what is compared, usually now.
        book: another book than the one that ships.
        catalogue: another catalogue than `genai-prices`.

    Raises:
        ModuleNotFoundError: when `genai-prices` is not installed; the message says what to do.
    """
    book = book or price_book()
    theirs_of = catalogue or genai_prices_catalogue()
    known = _known_differences()
    found: list[Difference] = []
    for model in sorted(set(book.models.values()), key=lambda model: model.id):
        for price in _our_prices(book, model, at):
            theirs = theirs_of(
                model.id, price.kind, price.prompt_over + 1_000, price.at, price.mode
            )
            if theirs != price.ours:
                found.append(replace(price, theirs=theirs, reason=_reason(known, price)))
    return tuple(found)


def genai_prices_catalogue() -> Catalogue:
    """Return `genai-prices` as a catalogue.

    Raises:
        ModuleNotFoundError: when it is not installed; the message says what to do.
    """
    try:
        import genai_prices
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "comparing prices needs the package genai-prices; install tallystick[dev]",
            name=error.name,
        ) from None

    def price(model: str, kind: TokenKind, prompt: int, at: datetime, mode: Mode) -> Decimal | None:
        counts = {"input_tokens": prompt, "output_tokens": 0, **_GENAI_USAGE[kind](prompt)}
        try:
            priced = genai_prices.calc_price(
                genai_prices.Usage(**counts),
                model,
                provider_id="anthropic",
                genai_request_timestamp=at,
                price_context=_CONTEXT[mode],
            )
        except LookupError:
            return None
        if kind is TokenKind.OUTPUT:
            return EXACT.divide(EXACT.multiply(priced.output_price, MILLION), THOUSAND)
        if kind is TokenKind.WEB_SEARCH:
            return EXACT.subtract(priced.total_price, priced.input_price)
        return EXACT.divide(EXACT.multiply(priced.input_price, MILLION), prompt)

    return price


_GENAI_USAGE: Mapping[TokenKind, Callable[[int], dict[str, int]]] = {
    TokenKind.INPUT: lambda _: {},
    TokenKind.OUTPUT: lambda _: {"output_tokens": int(THOUSAND)},
    TokenKind.CACHE_WRITE_5M: lambda n: {"cache_write_tokens": n, "cache_write_5m_tokens": n},
    TokenKind.CACHE_WRITE_1H: lambda n: {"cache_write_tokens": n, "cache_write_1h_tokens": n},
    TokenKind.CACHE_READ: lambda n: {"cache_read_tokens": n},
    TokenKind.WEB_SEARCH: lambda _: {"web_searches": int(THOUSAND)},
}


def _our_prices(book: PriceBook, model: Model, until: datetime) -> Iterator[Difference]:
    ends = [*(start - _INSTANT for start in model.starts[1:]), until]
    for start, end, tiers in zip(model.starts, ends, model.tiers, strict=True):
        if start > until:
            return
        at = min(end, until)
        for tier in tiers:
            if tier.missing:
                continue
            for mode, multiplier in _modes(book, model, at):
                for kind, unit in zip(TOKEN_KINDS, tier.units(multiplier), strict=True):
                    ours = EXACT.multiply(unit, MILLION)
                    yield Difference(model.id, kind, mode, tier.prompt_over, at, ours)
            search = EXACT.multiply(book.web_search_usd, THOUSAND)
            yield Difference(
                model.id, TokenKind.WEB_SEARCH, "standard", tier.prompt_over, at, search
            )


def _modes(book: PriceBook, model: Model, at: datetime) -> Iterator[tuple[Mode, Decimal]]:
    yield "standard", ONE
    yield "batch", book.batch_multiplier
    try:
        yield "fast", model.fast_multiplier(at)
    except NoPriceError:
        return


def _known_differences() -> list[dict[str, Any]]:
    text = (files("tallystick.pricing") / "data" / "known_differences.toml").read_text("utf-8")
    return tomllib.loads(text)["known"]


def _reason(known: list[dict[str, Any]], price: Difference) -> str | None:
    for entry in known:
        before: date | None = entry.get("before")
        if before is not None and price.at >= datetime.combine(before, time.min, UTC):
            continue
        if (
            price.model in entry.get("models", (price.model,))
            and price.mode == entry.get("mode", price.mode)
            and price.kind == entry.get("kind", price.kind)
        ):
            return entry["reason"]
    return None
