"""Ways in which the reports can be wrong, or right about what the other side does not know.

A lie changes what the reports are told of usage, never the journal. It holds for all usage that
matches it, also for what was served before it was told: the sums are then made anew. Several lies
act on the same usage in the order in which they were told.
"""

from dataclasses import replace
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from tallystick.sandbox.claude.used import Used


class Match(BaseModel):
    """Which usage is meant; what is left out does not matter.

    `ids` are request ids, message ids, batch ids or custom ids. Models are named as in the reports.
    Instants are seconds since the epoch, `until` is exclusive. `free` is usage that costs nothing:
    refusals before output.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ids: frozenset[str] | None = None
    models: frozenset[str] | None = None
    api_key_ids: frozenset[str | None] | None = None
    service_tiers: frozenset[str | None] | None = None
    inference_geos: frozenset[str | None] | None = None
    speeds: frozenset[str | None] | None = None
    since: float | None = None
    until: float | None = None
    free: bool | None = None

    def fits(self, used: Used) -> bool:
        """Tell whether usage is meant."""
        place = used.place
        return (
            (self.ids is None or not self.ids.isdisjoint(used.ids))
            and (self.models is None or place.model in self.models)
            and (self.api_key_ids is None or place.api_key_id in self.api_key_ids)
            and (self.service_tiers is None or place.service_tier in self.service_tiers)
            and (self.inference_geos is None or place.inference_geo in self.inference_geos)
            and (self.speeds is None or place.speed in self.speeds)
            and (self.since is None or used.at >= self.since)
            and (self.until is None or used.at < self.until)
            and (self.free is None or used.free is self.free)
        )


class _Lie(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    match: Match = Match()

    def retell(self, used: Used) -> Used | None:
        """Return usage that is meant as it is reported instead; None for not at all."""
        raise NotImplementedError


class Hide(_Lie):
    """Missing in both reports."""

    lie: Literal["hide"] = "hide"

    @override
    def retell(self, used: Used) -> Used | None:
        return None


class Move(_Lie):
    """Dated later by `seconds`, or earlier where they are below zero."""

    lie: Literal["move"] = "move"
    seconds: Annotated[float, Field(allow_inf_nan=False)]

    @override
    def retell(self, used: Used) -> Used | None:
        return replace(used, at=used.at + self.seconds)


class ShortWrites(_Lie):
    """Cache writes of an hour are told, and charged, as writes of five minutes."""

    lie: Literal["short_writes"] = "short_writes"

    @override
    def retell(self, used: Used) -> Used | None:
        writes = used.tokens.cache_write_5m + used.tokens.cache_write_1h
        return replace(used, tokens=used.tokens._replace(cache_write_5m=writes, cache_write_1h=0))


class Charge(_Lie):
    """What is free is charged: refusals appear in the cost report."""

    lie: Literal["charge"] = "charge"

    @override
    def retell(self, used: Used) -> Used | None:
        return replace(used, free=False)


class Reprice(_Lie):
    """List prices are multiplied by `factor`; `match.since` is from when on."""

    lie: Literal["reprice"] = "reprice"
    factor: Annotated[Decimal, Field(gt=0, max_digits=12)]

    @override
    def retell(self, used: Used) -> Used | None:
        return replace(used, factor=used.factor * self.factor)


class Discount(_Lie):
    """Charged `percent` less than list price: `amount` is below `list_amount`."""

    lie: Literal["discount"] = "discount"
    percent: Annotated[Decimal, Field(ge=0, le=100, max_digits=12)]

    @override
    def retell(self, used: Used) -> Used | None:
        return replace(used, paid=used.paid * (1 - self.percent / 100))


Lie = Annotated[Hide | Move | ShortWrites | Charge | Reprice | Discount, Field(discriminator="lie")]
"""Any of them, by `lie` in the control API."""


def retold(used: Used, lies: list[Lie]) -> Used | None:
    """Return usage as it is reported, None when it is not."""
    for lie in lies:
        if not lie.match.fits(used):
            continue
        changed = lie.retell(used)
        if changed is None:
            return None
        used = changed
    return used
