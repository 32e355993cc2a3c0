"""What usage costs at list price: the price book stands for Anthropic's own list.

The prompt's length decides a request's tier, and of a sum of requests it is no longer known. So
the tier is decided when usage is added to the sums (`tier_of`), and its threshold stays with them;
the price of a token is looked up when a report is read (`unit_prices`). Prices change at midnight
UTC, so a sum within one day has one price.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from tallystick.pricing import NoPriceError, TokenCounts, price_book
from tallystick.sandbox.claude.used import Place

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def tier_of(place: Place, at: float, tokens: TokenCounts, requests: int) -> int | None:
    """Return the prompt length above which these requests' prices hold, or None without a price.

    Requests told together are taken to be equally long.
    """
    prompt = -(-tokens.prompt // max(requests, 1))
    when = datetime.fromtimestamp(at, UTC)
    try:
        tier = price_book().model(place.model).tier(when, prompt)
        _multiplier(place, when)
    except NoPriceError:
        return None
    return tier.prompt_over


def unit_prices(place: Place, day: int, prompt_over: int) -> tuple[Decimal, ...]:
    """Return dollars for one of each, in the order of `TokenKind`.

    Args:
        place: one that has a price then.
        day: days since the epoch, UTC.
        prompt_over: as `tier_of` returned it.
    """
    book, when = price_book(), _EPOCH + timedelta(days=day)
    tier = book.model(place.model).tier(when, prompt_over + 1)
    return (*tier.units(_multiplier(place, when)), book.web_search_usd)


def _multiplier(place: Place, when: datetime) -> Decimal:
    if place.service_tier not in (None, "standard", "batch"):
        raise NoPriceError(f"service_tier {place.service_tier!r}")
    if place.inference_geo not in (None, "global", "us"):
        raise NoPriceError(f"inference_geo {place.inference_geo!r}")
    if place.speed not in (None, "standard", "fast"):
        raise NoPriceError(f"speed {place.speed!r}")
    book = price_book()
    return book.multiplier(
        book.model(place.model),
        when,
        batch=place.service_tier == "batch",
        us=place.inference_geo == "us",
        fast=place.speed == "fast",
    )
