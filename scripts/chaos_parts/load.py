"""The requests of a drill, drawn from its seed: three models, short and cached prompts, streams.

Each body names its request, so that no two are alike: what Claude's journal says of a body, and
what a fault is aimed at by it, belongs to one request.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .books import Key

MODELS = ("claude-sonnet-5-5", "claude-haiku-4-5", "claude-opus-4-6")
STREAMED = 22_000
"""Of `max_tokens`: Claude wants such calls streamed."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: who, under which id, and the Messages API parameters."""

    customer_id: str
    request_id: str
    params: dict[str, Any]

    @property
    def key(self) -> Key:
        """Name it as the books do."""
        return self.customer_id, self.request_id


def marked(request_id: str) -> str:
    """Return what a request's body contains and no other's, for holds and faults."""
    return f"<{request_id}>"


def body(request_id: str, dice: random.Random) -> dict[str, Any]:
    """Return a Messages body: short or cached for one of two lifetimes, whole or streamed."""
    cached = dice.choice([None, {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}])
    # A chapter for each lifetime, or which of the two is written would hang on who comes first.
    chapter = f"Chapter {dice.randrange(4)}, {cached}. " + "Of tallies and their uses. " * 400
    system = [{"type": "text", "text": chapter, "cache_control": cached}] if cached else []
    return {
        "model": dice.choice(MODELS),
        "max_tokens": dice.choice([64, 512, STREAMED]),
        "system": system,
        "messages": [{"role": "user", "content": f"{marked(request_id)} What is a tally?"}],
    }


class Load:
    """Requests for `customers`, which follow from `seed`."""

    def __init__(self, seed: int, customers: Sequence[str]):
        self._dice = random.Random(f"load {seed}")  # noqa: S311 - repeatable, no secret
        self._seed, self._customers = seed, customers
        self.asked: list[Ask] = []

    async def steady(self, rate: float, seconds: float) -> AsyncIterator[Ask]:
        """Yield `rate` requests a second on average, at the moments of a Poisson process."""
        clock = asyncio.get_running_loop().time
        moment = began = clock()
        while (moment := moment + self._dice.expovariate(rate)) < began + seconds:
            await asyncio.sleep(moment - clock())
            yield self._next()

    async def saturating(
        self, concurrency: int, seconds: float, ask: Callable[[Ask], Awaitable[None]]
    ) -> None:
        """Keep `concurrency` requests open: where `ask` returns, the next is asked."""
        clock = asyncio.get_running_loop().time
        end = clock() + seconds

        async def one_after_the_other() -> None:
            while clock() < end:
                await ask(self._next())

        await asyncio.gather(*(one_after_the_other() for _ in range(concurrency)))

    def _next(self) -> Ask:
        number = len(self.asked)
        request_id = f"drill-{self._seed}-{number}"
        ask = Ask(self._dice.choice(self._customers), request_id, body(request_id, self._dice))
        self.asked.append(ask)
        return ask
