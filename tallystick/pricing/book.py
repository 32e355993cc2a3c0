"""The price book: dated prices as data, checked as a whole before the first one is used.

Three TOML files in `data/` hold models, prices and rules. Loading cuts each model's life at every
day on which something changes and demands, for each span and each prompt-length tier, exactly one
price of each token kind. An overlap shows as two prices, a gap as none, and either refuses the
whole book: a wrong book stops the process at its start, it never prices a reply.

Prices are text in the data and Decimal here; a float is refused. A model, a day or a prompt without
an established price has no price here either: `NoPriceError` says why, and nothing falls back to a
default or to zero (facts on Claude, 'Read this first', 5).
"""

import tomllib
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from typing import Any

from tallystick.money import EXACT, usd
from tallystick.pricing.tokens import TOKEN_KINDS, TokenKind

MILLION = Decimal(1_000_000)
THOUSAND = Decimal(1_000)
ONE = Decimal(1)


class BookError(ValueError):
    """The data of a price book is wrong; the message names the row."""


class NoPriceError(LookupError):
    """Nothing established says what this costs; the message is the reason, for people."""


@dataclass(frozen=True, slots=True)
class PriceRow:
    """One price: US dollars per million tokens of a kind, for a span of time.

    `valid_until` is exclusive, None while it holds. `prompt_over` is the prompt length in tokens
    above which the row holds.
    """

    model: str
    kind: TokenKind
    usd_per_million: Decimal
    valid_from: datetime
    valid_until: datetime | None
    prompt_over: int
    source: str

    def in_force(self, at: datetime) -> bool:
        """Tell whether the row holds at an instant."""
        return self.valid_from <= at and (self.valid_until is None or at < self.valid_until)


@dataclass(frozen=True, slots=True)
class NoPriceRow:
    """Prompts longer than `prompt_over` have no established price from a day on."""

    model: str
    prompt_over: int
    valid_from: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class FastRow:
    """Fast mode is offered on a model, at a multiple of its standard price."""

    model: str
    multiplier: Decimal
    valid_from: datetime
    valid_until: datetime | None
    source: str


@dataclass(frozen=True, slots=True)
class Tier:
    """Unit prices of one model for one span of time and one range of prompt lengths.

    `standard` holds US dollars per token in the order of `TOKEN_KINDS`; `missing` is the reason
    when there is no price.
    """

    prompt_over: int
    standard: tuple[Decimal, ...]
    missing: str = ""
    _multiplied: dict[Decimal, tuple[Decimal, ...]] = field(
        default_factory=dict[Decimal, tuple[Decimal, ...]], compare=False, repr=False
    )

    def units(self, multiplier: Decimal) -> tuple[Decimal, ...]:
        """Return US dollars per token, multiplied, in the order of `TOKEN_KINDS`."""
        if multiplier is ONE:
            return self.standard
        found = self._multiplied.get(multiplier)
        if found is None:
            found = tuple(EXACT.multiply(unit, multiplier) for unit in self.standard)
            self._multiplied[multiplier] = found
        return found


@dataclass(frozen=True, slots=True)
class Model:
    """One model's priced life: `tiers[i]` holds from `starts[i]` on, the last of them for good."""

    id: str
    aliases: tuple[str, ...]
    us_inference: bool
    starts: tuple[datetime, ...]
    tiers: tuple[tuple[Tier, ...], ...]
    fast: tuple[FastRow, ...]

    def tiers_at(self, at: datetime) -> tuple[Tier, ...]:
        """Return the prompt-length tiers in force, the shortest prompts first."""
        span = bisect_right(self.starts, at) - 1
        if span < 0:
            raise NoPriceError(f"{self.id} has no price before {self.starts[0]:%Y-%m-%d}")
        return self.tiers[span]

    def tier(self, at: datetime, prompt: int) -> Tier:
        """Return the tier that a request with this many prompt tokens falls in."""
        tiers = self.tiers_at(at)
        chosen = tiers[0]
        for tier in tiers[1:]:
            if prompt > tier.prompt_over:
                chosen = tier
        if chosen.missing:
            raise NoPriceError(f"{self.id}: {chosen.missing}")
        return chosen

    def fast_multiplier(self, at: datetime) -> Decimal:
        """Return what fast mode multiplies the standard price by."""
        for row in self.fast:
            if row.valid_from <= at and (row.valid_until is None or at < row.valid_until):
                return row.multiplier
        raise NoPriceError(f"{self.id} does not offer speed 'fast' on {at:%Y-%m-%d}")


@dataclass(frozen=True)
class PriceBook:
    """A checked price book. `version` goes on every record that it priced."""

    version: str
    rows: tuple[PriceRow, ...]
    models: Mapping[str, Model]
    """By id and by alias."""
    refused: Mapping[str, str]
    """Ids that are known and not priced, each with its reason."""
    batch_multiplier: Decimal
    us_multiplier: Decimal
    refusals_free_from: datetime
    web_search_usd: Decimal
    """Dollars for one search."""

    def model(self, model: str) -> Model:
        """Return a model by the id a reply carries.

        Raises:
            NoPriceError: for an id without an established price, and for an unknown one.
        """
        found = self.models.get(model)
        if found is None:
            raise NoPriceError(self._why_not(model))
        return found

    def knows(self, model: str, at: datetime) -> bool:
        """Tell whether the book has a price for a model at an instant."""
        return self.why_unpriced(model, at) is None

    def why_unpriced(self, model: str, at: datetime) -> str | None:
        """Return why a model has no price at an instant; None when it has one."""
        try:
            self.model(model).tiers_at(at)
        except NoPriceError as error:
            return str(error)
        return None

    def prices(self, model: str, at: datetime) -> tuple[PriceRow, ...]:
        """Return the rows in force, by tier and kind.

        Raises:
            NoPriceError: when the book has none.
        """
        found = self.model(model)
        found.tiers_at(at)
        return tuple(row for row in self.rows if row.model == found.id and row.in_force(at))

    def multiplier(
        self, model: Model, at: datetime, *, batch: bool, us: bool, fast: bool
    ) -> Decimal:
        """Return what batch, geography and speed together multiply each token price by.

        Raises:
            NoPriceError: for a combination that the model does not offer.
        """
        multiplier = ONE
        if batch:
            multiplier = self.batch_multiplier
        if us:
            if not model.us_inference:
                raise NoPriceError(f"{model.id} does not offer inference_geo 'us'")
            multiplier = EXACT.multiply(multiplier, self.us_multiplier)
        if fast:
            if batch:
                raise NoPriceError("speed 'fast' is not offered in batches")
            multiplier = EXACT.multiply(multiplier, model.fast_multiplier(at))
        return multiplier

    def _why_not(self, model: str) -> str:
        return self.refused.get(model) or f"the price book does not know the model {model[:100]!r}"


@lru_cache
def price_book() -> PriceBook:
    """Return the price book that ships with the package, loaded and checked once.

    Raises:
        BookError: naming the row that is wrong.
    """
    data = files("tallystick.pricing") / "data"
    merged: dict[str, Any] = {}
    for name in ("models.toml", "prices.toml", "rules.toml"):
        merged |= tomllib.loads((data / name).read_text(encoding="utf-8"))
    return build_book(merged)


def build_book(data: Mapping[str, Any]) -> PriceBook:
    """Check the data of a book as a whole and return the book.

    Args:
        data: the three files of `data/` as one table.

    Raises:
        BookError: naming the row that is wrong.
    """
    try:
        return _build(data)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, BookError):
            raise
        raise BookError(f"price book: {error!r}") from error


def _build(data: Mapping[str, Any]) -> PriceBook:
    sources: Mapping[str, str] = data["sources"]
    rows = tuple(_price_row(row, sources) for row in data["prices"])
    no_price = tuple(
        NoPriceRow(row["model"], _threshold(row), _day(row["valid_from"]), row["reason"])
        for row in data["no_price"]
    )
    fast = tuple(
        FastRow(
            row["model"],
            _number(row["multiplier"], row),
            _day(row["valid_from"]),
            _until(row),
            sources[row["source"]],
        )
        for row in data["fast"]
    )
    for rule in ("batch", "us_inference", "refusals", "web_search"):
        if data[rule]["source"] not in sources:
            raise BookError(f"{rule} has no known source: {data[rule]}")
    ids = {model["id"] for model in data["models"]}
    for row in (*rows, *no_price, *fast):
        if row.model not in ids:
            raise BookError(f"a row names the model {row.model!r}, which is not listed: {row}")

    models: dict[str, Model] = {}
    refused: dict[str, str] = {}
    for entry in data["models"]:
        model = _model(entry, rows, no_price, fast)
        for name in (model.id, *model.aliases):
            if name in models:
                raise BookError(f"{name} is listed twice")
            models[name] = model
    for entry in data["unpriced"]:
        for name in entry["ids"]:
            if name in models:
                raise BookError(f"{name} is listed both with a price and as unpriced")
            refused[name] = f"{name} is not priced: {entry['reason']}"
    return PriceBook(
        version=data["version"],
        rows=rows,
        models=models,
        refused=refused,
        batch_multiplier=_number(data["batch"]["multiplier"], data["batch"]),
        us_multiplier=_number(data["us_inference"]["multiplier"], data["us_inference"]),
        refusals_free_from=_day(data["refusals"]["free_from"]),
        web_search_usd=EXACT.divide(
            _number(data["web_search"]["usd_per_thousand"], data["web_search"]), THOUSAND
        ),
    )


def _price_row(row: Mapping[str, Any], sources: Mapping[str, str]) -> PriceRow:
    kind = TokenKind(row["kind"])
    if kind not in TOKEN_KINDS:
        raise BookError(f"{kind} is not a kind of token: {row}")
    made = PriceRow(
        model=row["model"],
        kind=kind,
        usd_per_million=_number(row["usd_per_million"], row),
        valid_from=_day(row["valid_from"]),
        valid_until=_until(row),
        prompt_over=_threshold(row),
        source=sources[row["source"]],
    )
    if made.valid_until is not None and made.valid_until <= made.valid_from:
        raise BookError(f"ends before it starts: {row}")
    return made


def _model(
    entry: Mapping[str, Any],
    rows: Iterable[PriceRow],
    no_price: Iterable[NoPriceRow],
    fast: Iterable[FastRow],
) -> Model:
    name = entry["id"]
    own = [row for row in rows if row.model == name]
    own_gaps = [row for row in no_price if row.model == name]
    if not own:
        raise BookError(f"{name} is listed without a price")
    days = {row.valid_from for row in (*own, *own_gaps)}
    days |= {row.valid_until for row in own if row.valid_until is not None}
    starts = tuple(sorted(days))
    return Model(
        id=name,
        aliases=tuple(entry.get("aliases", ())),
        us_inference=entry["us_inference"],
        starts=starts,
        tiers=tuple(_tiers(name, at, own, own_gaps) for at in starts),
        fast=_fast(name, fast),
    )


def _tiers(
    name: str, at: datetime, rows: Iterable[PriceRow], no_price: Iterable[NoPriceRow]
) -> tuple[Tier, ...]:
    by_tier: dict[int, dict[TokenKind, Decimal]] = {0: {}}
    for row in rows:
        if not row.in_force(at):
            continue
        prices = by_tier.setdefault(row.prompt_over, {})
        if row.kind in prices:
            raise BookError(f"{name}, {row.kind}: two prices overlap on {at:%Y-%m-%d}")
        prices[row.kind] = EXACT.divide(row.usd_per_million, MILLION)
    tiers: dict[int, Tier] = {}
    for prompt_over, prices in by_tier.items():
        for kind in TOKEN_KINDS:
            if kind not in prices:
                raise BookError(f"{name}, {kind}: no price on {at:%Y-%m-%d}, over {prompt_over}")
        tiers[prompt_over] = Tier(prompt_over, tuple(prices[kind] for kind in TOKEN_KINDS))
    for gap in no_price:
        if gap.valid_from <= at:
            if gap.prompt_over in tiers:
                raise BookError(
                    f"{name}: prompts over {gap.prompt_over} have a price and have none"
                )
            tiers[gap.prompt_over] = Tier(gap.prompt_over, (), gap.reason)
    return tuple(tiers[prompt_over] for prompt_over in sorted(tiers))


def _fast(name: str, rows: Iterable[FastRow]) -> tuple[FastRow, ...]:
    own = sorted((row for row in rows if row.model == name), key=lambda row: row.valid_from)
    for earlier, later in pairwise(own):
        if earlier.valid_until is None or later.valid_from < earlier.valid_until:
            raise BookError(f"{name}: two fast prices overlap on {later.valid_from:%Y-%m-%d}")
    return tuple(own)


def _number(value: object, row: object) -> Decimal:
    if not isinstance(value, str):
        raise BookError(f"a price is text, never {type(value).__name__}: {row}")
    number = usd(value)
    if number <= 0:
        raise BookError(f"a price is more than nothing: {row}")
    return number


def _threshold(row: Mapping[str, Any]) -> int:
    tokens = row.get("prompt_over", 0)
    if type(tokens) is not int or tokens < 0:
        raise BookError(f"prompt_over is a whole number of tokens: {row}")
    return tokens


def _day(value: date) -> datetime:
    return datetime.combine(value, time.min, UTC)


def _until(row: Mapping[str, Any]) -> datetime | None:
    return _day(row["valid_until"]) if "valid_until" in row else None
