"""Anthropic's reports, row by row, and the names under which both sides speak of the same usage.

A report names a model without its date and leaves an unset geography null; a reply names a dated
id, and says `not_available` or `global`. Everything is brought to one `Place` here, and nowhere
else: the price book's model id, and words for what is unset (facts on Claude, 'Usage and cost
reports').
"""

import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from tallystick.pricing import TokenCounts, price_book

STANDARD, BATCH, GLOBAL = "standard", "batch", "global"
_UNSET_GEOGRAPHIES = ("", "not_available", GLOBAL)
_DATED = re.compile(r"-\d{8}$")


class UsageRow(NamedTuple):
    """A row of the usage report: one bucket, one combination of dimensions, '' for null."""

    at: datetime
    model: str
    api_key_id: str
    service_tier: str
    inference_geo: str
    speed: str
    counts: TokenCounts
    requests: int | None


class CostRow(NamedTuple):
    """A row of the cost report of a UTC day, in dollars.

    `component` is a kind of token, `web_search`, or what the report calls the cost.
    """

    day: date
    model: str
    api_key_id: str
    component: str
    list_usd: Decimal
    amount_usd: Decimal


class Place(NamedTuple):
    """Where usage belongs, in the same words whoever tells of it."""

    model: str
    service_tier: str
    inference_geo: str
    speed: str

    @property
    def named(self) -> dict[str, str]:
        """Its dimensions by name; those without a value are left out."""
        return {name: value for name, value in self._asdict().items() if value}


@lru_cache(maxsize=4096)
def place_of(model: str, service_tier: str, inference_geo: str, speed: str) -> Place:
    """Return the place of usage that a report or a reply names this way, '' for null."""
    return Place(
        model=model_of(model),
        service_tier=service_tier or STANDARD,
        inference_geo=GLOBAL if inference_geo in _UNSET_GEOGRAPHIES else inference_geo,
        speed=speed or STANDARD,
    )


def model_of(name: str) -> str:
    """Return the price book's id of a model; of one it does not know, the name without its date."""
    book = price_book()
    known = book.models.get(name)
    return known.id if known else _undated().get(name) or _DATED.sub("", name)


def names_of(model: str) -> list[str]:
    """Return all names under which a model of the price book may be called."""
    known = price_book().models.get(model)
    return [known.id, *known.aliases] if known else [model]


@lru_cache
def _undated() -> dict[str, str]:
    return {_DATED.sub("", name): model.id for name, model in price_book().models.items()}


class Reported(NamedTuple):
    """What the report says of one place and bucket; `requests` is None where it does not say."""

    counts: TokenCounts = TokenCounts()
    requests: int | None = None

    def plus(self, other: "Reported") -> "Reported":
        """Return the sum; requests that one of them does not tell are not told."""
        told = None
        if self.requests is not None and other.requests is not None:
            told = self.requests + other.requests
        return Reported(self.counts.plus(other.counts), told)


At = tuple[Place, datetime]
"""One place in one bucket, by the instant it begins."""


def by_place(rows: Iterable[UsageRow]) -> Mapping[At, Reported]:
    """Add up the rows of all keys, by place and bucket."""
    sums: dict[At, Reported] = {}
    for row in rows:
        at = (place_of(row.model, row.service_tier, row.inference_geo, row.speed), row.at)
        told = Reported(row.counts, row.requests)
        sums[at] = sums[at].plus(told) if at in sums else told
    return sums
