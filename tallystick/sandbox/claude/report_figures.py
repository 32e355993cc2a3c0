"""What a row of a report says of the usage it stands for: counts, or cents.

Amounts are dollars inside and strings of fractional cents in the JSON, as the real report has them
(facts on Claude, 'Usage and cost reports').
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from typing import Any, ClassVar, NamedTuple

from typing_extensions import override

from tallystick.money import EXACT, plain, times
from tallystick.pricing import TokenCounts, TokenKind
from tallystick.sandbox.claude.list_prices import unit_prices
from tallystick.sandbox.claude.reports import Cell, Sum, Terms
from tallystick.sandbox.claude.used import Place

_TOKEN_TYPES = {
    TokenKind.INPUT: "uncached_input_tokens",
    TokenKind.CACHE_WRITE_5M: "cache_creation.ephemeral_5m_input_tokens",
    TokenKind.CACHE_WRITE_1H: "cache_creation.ephemeral_1h_input_tokens",
    TokenKind.CACHE_READ: "cache_read_input_tokens",
    TokenKind.OUTPUT: "output_tokens",
}
_CENTS = Decimal(100)

DailySums = Mapping[tuple[Cell, int], Sum]
"""Sums by cell and day since the epoch."""


class Figures(ABC):
    """The figures of one row, before it is broken out by component."""

    default_metric: ClassVar[str]
    dimensions: ClassVar[tuple[str, ...]] = Place._fields
    charged_only: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, sums: DailySums): ...

    @abstractmethod
    def metric(self, name: str) -> int | Decimal:
        """Return what rows are ordered by."""

    @abstractmethod
    def rows(self, group_by: Collection[str]) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
        """Return its rows: dimensions that are components, and the figures by their name."""


class UsageFigures(Figures):
    """Counts of everything that was used, free or not."""

    default_metric = "total_tokens"

    @override
    def __init__(self, sums: DailySums):
        self._sum = Sum()
        for each in sums.values():
            self._sum.add(each.requests, each.tokens)

    @override
    def metric(self, name: str) -> int:
        return self._usage()[name]

    @override
    def rows(self, group_by: Collection[str]) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
        yield {}, {"usage": self._usage()}

    def _usage(self) -> dict[str, Any]:
        tokens = self._sum.tokens
        return {
            "uncached_input_tokens": tokens.input,
            "cache_creation": {
                "ephemeral_5m_input_tokens": tokens.cache_write_5m,
                "ephemeral_1h_input_tokens": tokens.cache_write_1h,
            },
            "cache_read_input_tokens": tokens.cache_read,
            "output_tokens": tokens.output,
            "total_tokens": tokens.prompt + tokens.output,
            "server_tool_use": {"web_search_requests": tokens.web_search},
            "requests": self._sum.requests,
        }


class _Dollars(NamedTuple):
    listed: Decimal = Decimal(0)
    paid: Decimal = Decimal(0)

    def plus(self, other: "_Dollars") -> "_Dollars":
        return _Dollars(EXACT.add(self.listed, other.listed), EXACT.add(self.paid, other.paid))


class CostFigures(Figures):
    """Amounts of everything that costs something, by kind."""

    default_metric = "amount"
    dimensions = (*Place._fields, "cost_type", "token_type")
    charged_only = True

    @override
    def __init__(self, sums: DailySums):
        self._requests = sum(each.requests for each in sums.values())
        self._dollars = defaultdict[TokenKind, _Dollars](_Dollars)
        for (cell, day), each in sums.items():
            if cell.terms is not None:
                self._charge(cell.place, cell.terms, day, each.tokens)

    @override
    def metric(self, name: str) -> Decimal:
        whole = _total(self._dollars)
        return whole.listed if name == "list_amount" else whole.paid

    @override
    def rows(self, group_by: Collection[str]) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
        if not {"cost_type", "token_type"} & set(group_by):
            yield {}, {"cost": {**_cents(_total(self._dollars)), "requests": self._requests}}
        else:
            for component, dollars in self._components(group_by):
                yield component, {"cost": {**_cents(dollars), "requests": None}}

    def _charge(self, place: Place, terms: Terms, day: int, tokens: TokenCounts) -> None:
        prices = unit_prices(place, day, terms.prompt_over)
        for (kind, quantity), unit in zip(tokens.by_kind().items(), prices, strict=True):
            if quantity:
                listed = times(times(quantity, unit), terms.factor)
                dollars = _Dollars(listed, times(listed, terms.paid))
                self._dollars[kind] = self._dollars[kind].plus(dollars)

    def _components(self, group_by: Collection[str]) -> Iterator[tuple[dict[str, str], _Dollars]]:
        tokens = {kind: self._dollars[kind] for kind in _TOKEN_TYPES if kind in self._dollars}
        if "token_type" in group_by:
            for kind, dollars in tokens.items():
                yield {"cost_type": "tokens", "token_type": _TOKEN_TYPES[kind]}, dollars
        elif tokens:
            yield {"cost_type": "tokens"}, _total(tokens)
        if "cost_type" in group_by and TokenKind.WEB_SEARCH in self._dollars:
            yield {"cost_type": "web_search"}, self._dollars[TokenKind.WEB_SEARCH]


def _total(dollars: Mapping[TokenKind, _Dollars]) -> _Dollars:
    whole = _Dollars()
    for each in dollars.values():
        whole = whole.plus(each)
    return whole


def _cents(dollars: _Dollars) -> dict[str, str]:
    return {
        "amount": plain(times(dollars.paid, _CENTS)),
        "list_amount": plain(times(dollars.listed, _CENTS)),
        "currency": "USD",
    }
