"""Creating something in Stripe once, whatever becomes of the answers.

The key is a function of what is created, so a repeated call gets the first answer for a day, also
when that was lost on the way. But v1 keeps a 500 under its key too and replays it all day; a
replayed one is therefore tried again under the next key of a fixed row. Whoever repeats after more
than a day looks first whether the thing is there (facts on Stripe, 'SDK').
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar, cast

import stripe

_KEYS = 5

T = TypeVar("T")


async def create_once(
    create: Callable[[Any, Any], Awaitable[T]], params: Mapping[str, Any], key: str
) -> T:
    """Call `create` with the parameters and the key, or the first after it that is not spoilt.

    Raises:
        stripe.StripeError: as the SDK raised it.
    """
    for turn in range(1, _KEYS):
        try:
            return await create(params, _options(key, turn))
        except stripe.APIError as error:
            headers = cast("Mapping[str, str]", error.headers or {})
            if headers.get("idempotent-replayed") != "true":
                raise
    return await create(params, _options(key, _KEYS))


def _options(key: str, turn: int) -> dict[str, Any]:
    return {
        "idempotency_key": key if turn == 1 else f"{key}#k{turn}",
        "max_network_retries": 0,
    }
