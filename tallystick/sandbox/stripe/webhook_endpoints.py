"""Webhook endpoints: who is told of events, in which form, and under which secrets.

The API makes those that get whole events, and shows a secret once. The control API also makes thin
ones, with a secret of one's choice (the real API has event destinations for those).
"""

import secrets
from typing import Annotated, Literal

from pydantic import Field

from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.endpoint import Call, Endpoint, retrieve
from tallystick.sandbox.stripe.events import API_VERSION, matches
from tallystick.sandbox.stripe.lists import Paging, page
from tallystick.sandbox.stripe.wire import Metadata, Nested, Obj, Params, with_metadata

PATH = "/v1/webhook_endpoints"

Types = Annotated[list[str], Field(min_length=1)]


class Create(Params):
    """Where to send what, `*` for every type."""

    url: Annotated[str, Field(pattern=r"^https?://")]
    enabled_events: Types
    api_version: str | None = None
    description: str | None = None
    metadata: Metadata | None = None


class Update(Params):
    """What can change."""

    url: Annotated[str, Field(pattern=r"^https?://")] | None = None
    enabled_events: Types | None = None
    description: str | None = None
    disabled: bool | None = None
    metadata: Metadata | None = None


class Order(Nested):
    """An endpoint as a drill asks for it; `events` name v1 types in either form."""

    url: Annotated[str, Field(pattern=r"^https?://")]
    secret: Annotated[str, Field(min_length=1)]
    form: Literal["snapshot", "thin"] = "snapshot"
    events: Types = Field(default_factory=lambda: ["*"])
    api_version: str = API_VERSION
    livemode: bool = True


class Roll(Nested):
    """A new secret; the old one signs beside it for so many seconds of the clock."""

    secret: Annotated[str, Field(min_length=1)]
    old_for: Annotated[float, Field(ge=0)] = 24 * 3600


def add(account: Account, order: Order) -> Obj:
    """Make an endpoint."""
    return account.add(
        "webhook_endpoint",
        "we",
        {
            "object": "webhook_endpoint",
            "api_version": order.api_version,
            "application": None,
            "created": account.now(),
            "description": None,
            "enabled_events": list(order.events),
            "livemode": order.livemode,
            "metadata": {},
            "status": "enabled",
            "url": order.url,
            "_form": order.form,
            "_secrets": [(order.secret, None)],
        },
    )


def roll(account: Account, endpoint: Obj, order: Roll) -> None:
    """Sign with a new secret, and for a while with the old one too."""
    until = account.clock() + order.old_for
    old: list[tuple[str, float | None]] = endpoint["_secrets"]
    endpoint["_secrets"] = [
        (order.secret, None),
        *((secret, until if end is None else end) for secret, end in old),
    ]


def secrets_of(account: Account, endpoint: Obj) -> list[str]:
    """Return the secrets that sign now, the newest first."""
    held: list[tuple[str, float | None]] = endpoint["_secrets"]
    return [secret for secret, end in held if end is None or end > account.clock()]


def listening(account: Account, type: str, form: str) -> list[Obj]:
    """Return the endpoints that get events of a v1 type in a form."""
    return [
        endpoint
        for endpoint in account.table("webhook_endpoint").values()
        if endpoint["status"] == "enabled"
        and endpoint["_form"] == form
        and matches(type, [each.removeprefix("v1.") for each in endpoint["enabled_events"]])
    ]


async def create(call: Call, params: Create) -> Obj:
    """Make an endpoint; this answer alone has its secret."""
    order = Order(
        url=params.url,
        secret=f"whsec_{secrets.token_hex(16)}",
        events=params.enabled_events,
        api_version=params.api_version or API_VERSION,
        livemode=call.livemode,
    )
    endpoint = add(call.account, order)
    endpoint |= {
        "description": params.description,
        "metadata": with_metadata({}, params.metadata),
    }
    return {**endpoint, "secret": order.secret}


async def update(call: Call, params: Update) -> Obj:
    """Change an endpoint."""
    endpoint = call.account.get("webhook_endpoint", call.ids["id"])
    for name in ("url", "enabled_events", "description"):
        if (value := getattr(params, name)) is not None:
            endpoint[name] = value
    if params.disabled is not None:
        endpoint["status"] = "disabled" if params.disabled else "enabled"
    endpoint["metadata"] = with_metadata(endpoint["metadata"], params.metadata)
    return endpoint


async def delete(call: Call, _: Params) -> Obj:
    """Delete an endpoint; nothing more is sent to it."""
    endpoint = call.account.get("webhook_endpoint", call.ids["id"])
    del call.account.table("webhook_endpoint")[endpoint["id"]]
    return {"id": endpoint["id"], "object": "webhook_endpoint", "deleted": True}


async def listed(call: Call, params: Paging) -> Obj:
    """List endpoints, newest first."""
    return page(PATH, reversed(call.account.table("webhook_endpoint").values()), params)


ENDPOINTS = [
    Endpoint("POST", PATH, Create, create),
    Endpoint("GET", PATH, Paging, listed),
    retrieve("webhook_endpoint", PATH + "/{id}"),
    Endpoint("POST", PATH + "/{id}", Update, update),
    Endpoint("DELETE", PATH + "/{id}", Params, delete),
]
