"""How long the stand-in takes when asked to: so much a reply, so much an output token."""

import asyncio
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Latency(BaseModel):
    """Seconds before a reply begins, and for each of its output tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: Annotated[float, Field(ge=0)] = 0.0
    per_token: Annotated[float, Field(ge=0)] = 0.0

    async def before_stream(self) -> None:
        """Wait as long as the first token takes."""
        await _pause(self.seconds)

    async def for_tokens(self, tokens: int) -> None:
        """Wait as long as so many tokens of a stream take."""
        await _pause(self.per_token * tokens)

    async def for_reply(self, tokens: int) -> None:
        """Wait as long as a whole reply of so many output tokens takes."""
        await _pause(self.seconds + self.per_token * tokens)


async def _pause(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)
