"""Guards: what is refused before a token is spent, and what is warned about.

A guard decides on bounds (`tallystick.pricing.estimate`): it refuses when even the lower bound is
over a limit, passes when even the upper bound is within, and otherwise asks for Claude's own count.
So no request is refused on a guess, and most are decided without a network call. Warnings refuse
nothing and go by the likely size: by the upper bound, four times what English text comes to, most
would be false alarms.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from tallystick.errors import (
    COST_CEILING_EXCEEDED,
    TOO_MANY_INPUT_TOKENS,
    UNKNOWN_MODEL,
    Failure,
)
from tallystick.money import plain
from tallystick.pricing import (
    Estimate,
    NoPriceError,
    cliff_warnings,
    dearest_input_kind,
    estimate_cost,
    estimate_input_tokens,
)

WARN_PERCENT = 80
"""From this share of a limit on, the caller is warned."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one request: input tokens, and dollars at the provider's price."""

    max_input_tokens: int
    max_cost_usd: Decimal


@dataclass(frozen=True, slots=True)
class Refusal:
    """The request is refused: the row of the error table, why in words, and the figures."""

    failure: Failure
    message: str
    figures: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Pass:
    """The request is within its limits.

    `cost_usd` is the most it can cost without what server tools may add; `counted` tells whether
    that stands on Claude's own count of the prompt or on its size alone.
    """

    cost_usd: Decimal
    counted: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Undecided:
    """The size alone does not decide; Claude's count of the prompt does."""


def check(
    params: Mapping[str, Any],
    limits: Limits,
    at: datetime,
    *,
    counted: int | None = None,
    pdf_pages: int | None = None,
    batch: bool = False,
) -> Pass | Refusal | Undecided:
    """Check a Messages API body against its limits.

    Args:
        params: the body, valid.
        limits: what it must keep to.
        at: when it would be served.
        counted: Claude's own count of the input tokens, where it was asked for.
        pdf_pages: how many pages all PDFs in the body have, where they were counted.
        batch: whether it goes through Message Batches.
    """
    low, likely, high = (
        estimate_input_tokens(params, pdf_pages=pdf_pages)
        if counted is None
        else Estimate(counted, counted, counted)
    )
    try:
        cheapest, expected, dearest = (
            _cost(params, size, at, batch) for size in (low, likely, high)
        )
        cliffs = cliff_warnings(params["model"], likely, at)
    except NoPriceError as error:
        return Refusal(UNKNOWN_MODEL, f"params.model: {error}; see `tallystick prices show`")
    if low > limits.max_input_tokens:
        return Refusal(
            TOO_MANY_INPUT_TOKENS,
            f"the prompt is at least {low:,} tokens (estimated), over the limit of "
            f"{limits.max_input_tokens:,}; shorten it, start fresh, or set max_input_tokens",
        )
    if cheapest > limits.max_cost_usd:
        return Refusal(
            COST_CEILING_EXCEEDED,
            f"the request could cost ${plain(round(cheapest, 4))} (estimated, with max_tokens "
            f"{params['max_tokens']:,}), over the ceiling of ${plain(limits.max_cost_usd)}; lower "
            "max_tokens, start a fresh conversation, or set max_cost_usd",
        )
    if high > limits.max_input_tokens or dearest > limits.max_cost_usd:
        return Undecided()
    return Pass(dearest, counted is not None, (*_near(likely, expected, limits), *cliffs))


def _cost(params: Mapping[str, Any], tokens: int, at: datetime, batch: bool) -> Decimal:
    return estimate_cost(
        params["model"],
        tokens,
        params["max_tokens"],
        at,
        input_kind=dearest_input_kind(params),
        batch=batch,
        inference_geo=params.get("inference_geo"),
        speed=params.get("speed"),
    )


def _near(tokens: int, cost: Decimal, limits: Limits) -> list[str]:
    warnings: list[str] = []
    if tokens * 100 >= limits.max_input_tokens * WARN_PERCENT:
        warnings.append(
            f"the prompt is about {tokens:,} tokens (estimated), near the limit of "
            f"{limits.max_input_tokens:,}"
        )
    if cost * 100 >= limits.max_cost_usd * WARN_PERCENT:
        warnings.append(
            f"the request could cost ${plain(round(cost, 4))} (estimated), near the ceiling "
            f"of ${plain(limits.max_cost_usd)}"
        )
    return warnings
