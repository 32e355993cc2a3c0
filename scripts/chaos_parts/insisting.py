"""How a stubborn application asks: the same again, until somebody answers.

That is all that a caller has to do when a process or a server dies under its request.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE = 0.2
"""Seconds between one try and the next."""


async def insist(ask: Callable[[], Awaitable[T]], *passing: type[Exception]) -> T:
    """Return what `ask` returns, repeating it while it raises what passes by itself."""
    while True:
        try:
            return await ask()
        except passing:
            await asyncio.sleep(PAUSE)
