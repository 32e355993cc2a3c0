"""What may be asked of a report: its parameters, their bounds, and the minutes that they cover.

From the SDK's own parameter types and facts on Claude, 'Usage and cost reports'. A dimension or
filter that the stand-in does not have is refused by name: ignoring it would sum over what the
client meant to keep apart. With a bucket width a range covers the whole buckets inside it; what
becomes of a bucket that it cuts is not documented.
"""

import math
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import parse_qsl

from anthropic.types.beta.organization import BetaAnalyticsInferenceGeoFilter as Geo
from anthropic.types.beta.organization import BetaAnalyticsServiceTier as Tier
from anthropic.types.beta.organization import BetaAnalyticsSpeed as Speed
from anthropic.types.beta.organization import BetaAnalyticsUsageCostProductFilter as ProductFilter
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from tallystick.sandbox.claude.errors import ApiError
from tallystick.sandbox.claude.reports import MINUTE
from tallystick.sandbox.claude.used import Place

MAX_DIMENSIONS = 5

_WIDTHS = {"1m": 1, "1h": 60, "1d": 24 * 60}
_LONGEST, _LONGEST_BY_MINUTE = timedelta(days=31), timedelta(hours=24)
_OLDEST, _FIRST = timedelta(days=365), datetime(2026, 1, 1, tzinfo=UTC)

Dimension = Literal[
    "model", "api_key_id", "workspace_id", "service_tier", "inference_geo", "speed", "product"
]
Component = Literal["cost_type", "token_type"]
Width = Literal["1m", "1h", "1d"]
Limit = Annotated[int, Field(ge=1, le=1_000)]


class Span(NamedTuple):
    """Minutes since the epoch, `end` exclusive; `width` is a bucket's, None for one of all."""

    start: int
    end: int
    width: int | None

    def bucket(self, minute: int) -> tuple[int, int]:
        """Return the first minute of a minute's bucket and the first one behind it."""
        if self.width is None:
            return self.start, self.end
        start = minute - minute % self.width
        return start, start + self.width


class Question(BaseModel):
    """What both reports take."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    starting_at: AwareDatetime
    ending_at: AwareDatetime | None = None
    time_bucket_width: Width | None = None
    models: list[str] | None = None
    api_key_ids: list[str] | None = None
    workspace_ids: list[str] | None = None
    service_tiers: list[Tier] | None = None
    inference_geos: list[Geo] | None = None
    speeds: list[Speed] | None = None
    products: list[ProductFilter] | None = None
    order: Literal["asc", "desc"] = "desc"
    limit: Limit = 20
    page: str | None = None

    def span(self, now: datetime) -> Span:
        """Return what is covered.

        Raises:
            ApiError: 400 for a range that is not to be had.
        """
        start, end = self.starting_at, self.ending_at
        if start < max(now - _OLDEST, _FIRST):
            raise ApiError(400, "starting_at: must be within the last 365 days and not before 2026")
        if end is None:
            if self.time_bucket_width is not None:
                raise ApiError(400, "ending_at: required with time_bucket_width")
            end = min(now, start + _LONGEST)
        if end <= start:
            raise ApiError(400, "ending_at: must be after starting_at")
        if end - start > _LONGEST:
            raise ApiError(400, "ending_at: the range may span at most 31 days")
        if self.time_bucket_width == "1m" and end - start > _LONGEST_BY_MINUTE:
            raise ApiError(400, "ending_at: the range may span at most 24 hours by the minute")
        if self.time_bucket_width is None:
            return Span(_minute(start, 60), _minute(end, 60), None)
        width = _WIDTHS[self.time_bucket_width]
        return Span(_minute(start, width, up=True), _minute(end, width), width)

    def wants(self, place: Place) -> bool:
        """Tell whether the filters let a place through."""
        return (
            (self.models is None or place.model in self.models)
            and (self.api_key_ids is None or (place.api_key_id or "") in self.api_key_ids)
            and (self.workspace_ids is None or place.workspace_id in self.workspace_ids)
            and (self.service_tiers is None or place.service_tier in self.service_tiers)
            and (
                self.inference_geos is None
                or (place.inference_geo or "not_available") in self.inference_geos
            )
            and (self.speeds is None or place.speed in self.speeds)
            and (self.products is None or place.product in self.products)
        )


class UsageQuestion(Question):
    """GET /v1/organizations/analytics/usage."""

    group_by: Annotated[list[Dimension], Field(max_length=MAX_DIMENSIONS)] = []
    order_by: Literal[
        "total_tokens", "output_tokens", "uncached_input_tokens", "requests", "time"
    ] = "total_tokens"


class CostQuestion(Question):
    """GET /v1/organizations/analytics/cost; components do not count as dimensions."""

    group_by: list[Dimension | Component] = []
    order_by: Literal["amount", "list_amount", "time"] = "amount"

    @model_validator(mode="after")
    def _few_dimensions(self) -> "CostQuestion":
        if len(set(self.group_by) - {"cost_type", "token_type"}) > MAX_DIMENSIONS:
            raise ValueError(f"group_by: at most {MAX_DIMENSIONS}")
        return self


def fields_of(query: str) -> dict[str, Any]:
    """Return the parameters of a query string; those written `name[]` are lists."""
    fields: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name.endswith("[]"):
            fields.setdefault(name.removesuffix("[]"), []).append(value)
        elif name != "beta":  # the SDK marks its calls to a beta route with it
            fields[name] = value
    return fields


def _minute(at: datetime, width: int, *, up: bool = False) -> int:
    """Return an instant in minutes, rounded down or up to whole widths."""
    whole = at.timestamp() / (MINUTE * width)
    return (math.ceil(whole) if up else math.floor(whole)) * width
