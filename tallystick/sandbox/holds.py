"""Holds: requests that wait at a stated point until a test lets them go.

A crash test needs the worker to die at a known moment: "Claude is at work" or "Claude has served,
the answer has not left". A hold freezes the stand-in there, says how many requests wait, and goes
on when released. A request whose client has died meanwhile goes on too, as it would in the world.
"""

import asyncio
import itertools
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Point = Literal["received", "served"]
"""Before the work is done and journalled, or after that and before the answer leaves."""


class HoldOrder(BaseModel):
    """Hold requests whose raw body contains `match`; `times` None means each one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    match: str = ""
    at: Point = "received"
    times: Annotated[int, Field(ge=1)] | None = None


class _Hold:
    def __init__(self, order: HoldOrder):
        self.order = order
        self.match = order.match.encode()
        self.caught = 0
        self.waiting = 0
        self.released = asyncio.Event()

    def catches(self, point: Point, request: bytes) -> bool:
        full = self.order.times is not None and self.caught >= self.order.times
        return point == self.order.at and not full and self.match in request


class Holds:
    """The holds of one stand-in."""

    def __init__(self) -> None:
        self._holds: dict[str, _Hold] = {}
        self._ids = itertools.count(1)

    def add(self, order: HoldOrder) -> str:
        """Set a hold; returns its id."""
        hold_id = f"hold_{next(self._ids)}"
        self._holds[hold_id] = _Hold(order)
        return hold_id

    def release(self, hold_id: str | None = None) -> int:
        """Let the requests of one hold go, or of all, and remove it; returns how many waited.

        Raises:
            KeyError: no such hold.
        """
        going = [hold_id] if hold_id is not None else list(self._holds)
        holds = [self._holds.pop(each) for each in going]
        for hold in holds:
            hold.released.set()
        return sum(hold.waiting for hold in holds)

    async def pause(self, point: Point, request: bytes) -> None:
        """Wait here while a hold catches this request."""
        for hold in list(self._holds.values()):
            if hold.catches(point, request):
                hold.caught += 1
                hold.waiting += 1
                try:
                    await hold.released.wait()
                finally:
                    hold.waiting -= 1

    def state(self) -> list[dict[str, Any]]:
        """Return the holds that are set, as JSON."""
        return [
            {"id": hold_id, **hold.order.model_dump(), "waiting": hold.waiting}
            for hold_id, hold in self._holds.items()
        ]
