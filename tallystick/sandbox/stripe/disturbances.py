"""What can go wrong with webhooks on demand, on an event's first delivery; retries are clean."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from tallystick.sandbox.stripe.events import matches


class Manner(BaseModel):
    """How a delivery is sent.

    `copies` are sent each time. They arrive in any order within `shuffle_seconds`, which are real
    ones. The signature's time is `signed_seconds` off the real time: below zero it is stale, above
    it lies ahead. `api_version` gives the event another version's name, and its shape where that
    differs (see `versions`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    copies: Annotated[int, Field(ge=1, le=1_000)] = 1
    shuffle_seconds: Annotated[float, Field(ge=0, le=60)] = 0
    signature: Literal["valid", "wrong_secret", "missing", "garbled"] = "valid"
    signed_seconds: int = 0
    api_version: str | None = None


class Disturbance(Manner):
    """What becomes of events of some types; `share` of them are struck, `times` at the most.

    `drop` sends nothing, ever: only the event lists know. `delay` seconds of the clock pass before
    the first attempt. `twice` lets the same change make two events.
    """

    types: tuple[str, ...] = ("*",)
    share: Annotated[float, Field(gt=0, le=1)] = 1
    times: Annotated[int, Field(ge=1)] | None = None
    drop: bool = False
    delay: Annotated[float, Field(ge=0)] = 0
    twice: bool = False

    def fits(self, type: str) -> bool:
        """Say whether it strikes events of a v1 type."""
        return matches(type, list(self.types))


class Resend(Manner):
    """Send old events again: those named, or all of some types; to one endpoint or to all."""

    events: tuple[str, ...] | None = None
    types: tuple[str, ...] = ("*",)
    endpoint: str | None = None


CLEAN = Manner()
