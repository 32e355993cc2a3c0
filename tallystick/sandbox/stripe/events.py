"""Events: each change leaves one, whole (v1) and as a thin twin (v2); both are kept for 30 days.

A v1 event holds the object as it was; a thin one only names it, and is fetched. Either has an id of
its own, so a listener to both meets every change twice (facts on Stripe, 'Corrections').
"""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import urlencode

from pydantic import Field

from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.endpoint import Call, Endpoint
from tallystick.sandbox.stripe.lists import Paging, Span, page, within
from tallystick.sandbox.stripe.wire import (
    Nested,
    Obj,
    Params,
    Refusal,
    V2Params,
    public,
    rfc3339,
    unix_seconds,
)

API_VERSION = "2026-10-28.endive"
KEPT_SECONDS = 30 * 86400

PATH, V2_PATH = "/v1/events", "/v2/core/events"

METER_ERRORS = ("v1.billing.meter.error_report_triggered", "v1.billing.meter.no_meter_found")

_ADDRESSES = {
    "billing.meter": "/v1/billing/meters/",
    "customer": "/v1/customers/",
    "invoice": "/v1/invoices/",
    "invoiceitem": "/v1/invoiceitems/",
    "payment_intent": "/v1/payment_intents/",
    "payment_method": "/v1/payment_methods/",
    "subscription": "/v1/subscriptions/",
}


def emit(account: Account, type: str, obj: Obj, previous: Obj | None = None) -> Obj:
    """Record a change of an object as it is now, and tell those who listen.

    Args:
        account: where it happened.
        type: such as `invoice.paid`.
        obj: the object.
        previous: what changed fields held before.
    """
    data: Obj = {"object": public(obj)}
    if previous is not None:
        data["previous_attributes"] = previous
    event, thin = _add_pair(
        account,
        {
            "object": "event",
            "api_version": API_VERSION,
            "created": account.now(),
            "data": data,
            "livemode": obj["livemode"],
            "pending_webhooks": 0,
            "request": {"id": None, "idempotency_key": None},
            "type": type,
        },
        _related(obj),
    )
    _tell(account, event, thin)
    return event


@contextmanager
def updating(account: Account, type: str, obj: Obj) -> Generator[None, None, None]:
    """Emit an event for what changes inside, if anything does."""
    before: Obj = public(obj)
    yield
    after: Obj = public(obj)
    changed = {key: before.get(key) for key in after if before.get(key) != after[key]}
    if changed:
        emit(account, type, obj, changed)


def twin(account: Account, event: Obj) -> tuple[Obj, Obj]:
    """Make the same change a second event, whole and thin, under ids of its own; nobody is told."""
    fields = {key: value for key, value in event.items() if key != "id" and key[0] != "_"}
    fields |= {"created": account.now(), "pending_webhooks": 0}
    return _add_pair(account, fields, event["_thin"]["related_object"])


def again(account: Account, event: Obj) -> Obj:
    """Emit the same change once more, as another event."""
    copy, thin = twin(account, event)
    _tell(account, copy, thin)
    return copy


def report_meter_error(
    account: Account, code: str, *, sample: str, meter: Obj | None, livemode: bool
) -> None:
    """Emit the thin event of a meter event that failed after it was accepted.

    `sample` is what the report names the meter event by.
    """
    now = rfc3339(account.clock())
    named = {"error_message": f"rejected: {code}", "request": {"identifier": sample}}
    kinds = [{"code": code, "error_count": 1, "sample_errors": [named]}]
    thin = _add_thin(
        account,
        METER_ERRORS[meter is None],
        livemode=livemode,
        related=_related(meter) if meter else None,
        data={
            "developer_message_summary": f"There is 1 invalid event: {code}.",
            "reason": {"error_count": 1, "error_types": kinds},
            "validation_start": now,
            "validation_end": now,
        },
    )
    _tell(account, None, thin)


def _related(obj: Obj) -> Obj:
    return {"id": obj["id"], "type": obj["object"], "url": _ADDRESSES[obj["object"]] + obj["id"]}


def _add_pair(account: Account, event: Obj, related: Obj) -> tuple[Obj, Obj]:
    """Keep an event and its thin twin."""
    whole = account.add("event", "evt", event)
    thin = _add_thin(
        account,
        f"v1.{event['type']}",
        livemode=event["livemode"],
        related=related,
        snapshot_event=whole["id"],
    )
    whole["_thin"] = thin
    return whole, thin


def _add_thin(
    account: Account, type: str, *, livemode: bool, related: Obj | None, **more: Any
) -> Obj:
    thin: Obj = {
        "object": "v2.core.event",
        "created": rfc3339(account.clock()),
        "livemode": livemode,
        "type": type,
        "_created": account.clock(),
        **more,
    }
    return account.add(
        "thin event", "evt", thin | ({} if related is None else {"related_object": related})
    )


def _tell(account: Account, event: Obj | None, thin: Obj) -> None:
    for listener in account.on_event:
        listener(event, thin)


class List(Paging):
    """What events can be listed by."""

    created: Span | int | None = None
    type: str | None = None
    types: Annotated[list[str], Field(max_length=20)] | None = None
    delivery_success: bool | None = None


class V2Span(Nested):
    """Bounds in RFC 3339."""

    gt: str | None = None
    gte: str | None = None
    lt: str | None = None
    lte: str | None = None


class V2List(V2Params):
    """What thin events can be listed by."""

    model_config = V2Params.model_config | {"strict": False}  # a query is text

    created: V2Span | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    object_id: str | None = None
    page: str | None = None
    types: Annotated[list[str], Field(max_length=20)] | None = None


def _kept(account: Account, kind: str, created: str) -> Iterable[Obj]:
    since = account.clock() - KEPT_SECONDS
    return [row for row in reversed(account.table(kind).values()) if row[created] >= since]


def matches(type: str, wanted: list[str] | None) -> bool:
    """Say whether a type is wanted: by name, or by a pattern that ends in `*`."""
    if wanted is None:
        return True
    return any(
        type == each or (each.endswith("*") and type.startswith(each[:-1])) for each in wanted
    )


async def listed(call: Call, params: List) -> Obj:
    """List events of the last 30 days, newest first."""
    if params.type is not None and params.types is not None:
        raise Refusal(400, "You may only specify one of type and types.", param="types")
    wanted = params.types if params.type is None else [params.type]
    rows = [
        row
        for row in _kept(call.account, "event", "created")
        if matches(row["type"], wanted)
        and within(row["created"], params.created)
        and params.delivery_success in (None, row["pending_webhooks"] == 0)
    ]
    return page(PATH, rows, params)


async def retrieve(call: Call, _: Params) -> Obj:
    """Show an event of the last 30 days."""
    return _young(call, "event", "created")


async def listed_v2(call: Call, params: V2List) -> Obj:
    """List thin events of the last 30 days, newest first."""
    span = params.created or V2Span()
    bounds = {name: unix_seconds(text) for name, text in span.model_dump(exclude_none=True).items()}
    rows = [
        row
        for row in _kept(call.account, "thin event", "_created")
        if matches(row["type"], params.types)
        and within(row["_created"], Span(**bounds))
        and params.object_id in (None, row.get("related_object", {}).get("id"))
    ]
    ids = [row["id"] for row in rows]
    start = 0
    if params.page is not None:
        if params.page not in ids:
            raise Refusal(400, "No such page.", code="invalid_page")
        start = ids.index(params.page)
    following = ids[start + params.limit : start + params.limit + 1]
    return {
        "data": rows[start : start + params.limit],
        "next_page_url": _page_url(params, following[0]) if following else None,
        "previous_page_url": None,
    }


def _page_url(params: V2List, first: str) -> str:
    """Return the address of a page; the SDK follows it as it is, so it repeats the filters."""
    told: Obj = params.model_dump(exclude_none=True, exclude={"created", "types", "page"})
    bounds = params.created.model_dump(exclude_none=True) if params.created else {}
    told |= {f"created[{name}]": instant for name, instant in bounds.items()}
    told |= {f"types[{n}]": type for n, type in enumerate(params.types or ())}
    return f"{V2_PATH}?{urlencode(told | {'page': first})}"


async def retrieve_v2(call: Call, _: V2Params) -> Obj:
    """Show a thin event of the last 30 days, with its data."""
    return _young(call, "thin event", "_created")


def _young(call: Call, kind: str, created: str) -> Obj:
    event = call.account.get(kind, call.ids["id"])
    if event[created] < call.account.clock() - KEPT_SECONDS:
        raise Refusal(404, f"No such event: '{event['id']}'", code="resource_missing", param="id")
    return event


ENDPOINTS = [
    Endpoint("GET", PATH, List, listed),
    Endpoint("GET", PATH + "/{id}", Params, retrieve),
    Endpoint("GET", V2_PATH, V2List, listed_v2),
    Endpoint("GET", V2_PATH + "/{id}", V2Params, retrieve_v2),
]
