"""The time of a stand-in: the real one until somebody sets it; from then on it stands still.

What takes a day in the world (a batch that expires, an invoice that falls due) takes a test one
call. A clock that went on after it was set would let two runs differ by how fast they were.
"""

import time
from collections.abc import Callable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Clock = Callable[[], float]
"""Seconds since the epoch."""


class ClockOrder(BaseModel):
    """What time it shall be: `now` in seconds since the epoch, or `advance` seconds from now."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    now: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    advance: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> "ClockOrder":
        if (self.now is None) == (self.advance is None):
            raise ValueError("say either now or advance")
        return self


class SettableClock:
    """A clock to be read by calling it.

    Args:
        source: what it shows until it is set.
    """

    def __init__(self, source: Clock = time.time):
        self._source = source
        self._set_to: float | None = None

    def __call__(self) -> float:
        """Return seconds since the epoch."""
        return self._source() if self._set_to is None else self._set_to

    def set(self, order: ClockOrder) -> None:
        """Set it; it stands still from now on."""
        self._set_to = order.now if order.now is not None else self() + (order.advance or 0)

    def state(self) -> dict[str, float | bool]:
        """Return the time and whether it passes, as JSON."""
        return {"now": self(), "running": self._set_to is None}
