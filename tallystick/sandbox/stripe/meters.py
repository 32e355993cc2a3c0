"""Meters and their event summaries."""

import itertools
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.endpoint import Call, Endpoint, Handler, retrieve
from tallystick.sandbox.stripe.journal import Entry
from tallystick.sandbox.stripe.lists import Paging, page
from tallystick.sandbox.stripe.usage import aggregate, visible
from tallystick.sandbox.stripe.wire import Obj, Params, Refusal

PATH = "/v1/billing/meters"
_WINDOW_SECONDS = {None: 60, "hour": 3600, "day": 86400}


class _Nested(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Aggregation(_Nested):
    """How a meter adds up."""

    formula: Literal["sum", "count", "last"]


class CustomerMapping(_Nested):
    """Which payload key names the customer."""

    event_payload_key: Annotated[str, Field(max_length=100)] = "stripe_customer_id"
    type: Literal["by_id"] = "by_id"


class ValueSettings(_Nested):
    """Which payload key holds the value."""

    event_payload_key: Annotated[str, Field(max_length=100)] = "value"


class Create(Params):
    """What a new meter is given; only its display name can change later."""

    display_name: Annotated[str, Field(max_length=250)]
    event_name: Annotated[str, Field(max_length=100)]
    default_aggregation: Aggregation
    customer_mapping: CustomerMapping = CustomerMapping()
    value_settings: ValueSettings = ValueSettings()


class Update(Params):
    """What can change."""

    display_name: Annotated[str, Field(max_length=250)] | None = None


class List(Paging):
    """What meters can be listed by."""

    status: Literal["active", "inactive"] | None = None


class Summaries(Paging):
    """One customer's usage in [start_time, end_time), Unix seconds."""

    customer: str
    start_time: int
    end_time: int
    value_grouping_window: Literal["hour", "day"] | None = None


async def create(call: Call, params: Create) -> Obj:
    """Make a meter; an event name has one."""
    account, now = call.account, call.account.now()
    if meter_for(account, params.event_name) is not None:
        raise Refusal(
            400, f"A meter with event name {params.event_name} exists.", param="event_name"
        )
    return account.add(
        "meter",
        "mtr",
        {
            "object": "billing.meter",
            "created": now,
            "customer_mapping": params.customer_mapping.model_dump(),
            "default_aggregation": params.default_aggregation.model_dump(),
            "display_name": params.display_name,
            "event_name": params.event_name,
            "event_time_window": None,
            "livemode": call.livemode,
            "status": "active",
            "status_transitions": {"deactivated_at": None},
            "updated": now,
            "value_settings": params.value_settings.model_dump(),
        },
    )


def meter_for(account: Account, event_name: str) -> Obj | None:
    """Return the meter of an event name, active or not."""
    meters = account.table("meter").values()
    return next((meter for meter in meters if meter["event_name"] == event_name), None)


async def update(call: Call, params: Update) -> Obj:
    """Rename a meter."""
    meter = call.account.get("meter", call.ids["id"])
    if params.display_name is not None:
        meter |= {"display_name": params.display_name, "updated": call.account.now()}
    return meter


def _switch(status: str) -> Handler:
    async def handle(call: Call, _: Params) -> Obj:
        now = call.account.now()
        meter = call.account.get("meter", call.ids["id"])
        if meter["status"] == status:
            raise Refusal(400, f"The meter is already {status}.")
        meter |= {
            "status": status,
            "status_transitions": {"deactivated_at": now if status == "inactive" else None},
            "updated": now,
        }
        return meter

    return handle


async def listed(call: Call, params: List) -> Obj:
    """List meters, newest first."""
    rows = reversed(call.account.table("meter").values())
    return page(PATH, [row for row in rows if params.status in (None, row["status"])], params)


async def summaries(call: Call, params: Summaries) -> Obj:
    """Add up what counts and is old enough to be seen; windows without events have no row."""
    account = call.account
    meter = account.get("meter", call.ids["id"])
    account.get("customer", params.customer, param="customer", status=400)
    step = _WINDOW_SECONDS[params.value_grouping_window]
    for name in ("start_time", "end_time"):
        if getattr(params, name) % step:
            raise Refusal(
                400,
                f"{name} must align with {params.value_grouping_window or 'minute'} boundaries.",
                param=name,
            )
    if params.end_time <= params.start_time:
        raise Refusal(400, "end_time must be after start_time.", param="end_time")
    entries = visible(account, meter, params.customer, params.start_time, params.end_time)
    width = step if params.value_grouping_window else params.end_time - params.start_time

    def window_of(entry: Entry) -> int:
        return entry.timestamp - (entry.timestamp - params.start_time) % width

    rows = [
        {
            "id": f"mtrusg_{meter['id'][4:]}_{start}",
            "object": "billing.meter_event_summary",
            "aggregated_value": float(aggregate(meter, group)),  # exact to 2^53 only
            "start_time": start,
            "end_time": start + width,
            "livemode": call.livemode,
            "meter": meter["id"],
        }
        for start, group in itertools.groupby(sorted(entries, key=window_of), key=window_of)
    ]
    return page(call.path, reversed(rows), params)


ENDPOINTS = [
    Endpoint("POST", PATH, Create, create),
    Endpoint("GET", PATH, List, listed),
    retrieve("meter", PATH + "/{id}"),
    Endpoint("POST", PATH + "/{id}", Update, update),
    Endpoint("POST", PATH + "/{id}/deactivate", Params, _switch("inactive")),
    Endpoint("POST", PATH + "/{id}/reactivate", Params, _switch("active")),
    Endpoint("GET", PATH + "/{id}/event_summaries", Summaries, summaries),
]
