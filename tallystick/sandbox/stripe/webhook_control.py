"""What a drill tells this Stripe about webhooks, under `/_sandbox`."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tallystick.sandbox.control import read_order
from tallystick.sandbox.stripe import events, webhook_endpoints
from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.courier import Courier
from tallystick.sandbox.stripe.disturbances import Disturbance, Resend
from tallystick.sandbox.stripe.wire import Obj, public

_PAGE = 1_000


class Emission(BaseModel):
    """Events out of turn: an event's change once more, or a type for an object as it is now."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    event: str | None = None
    type: str | None = None
    kind: str | None = None
    id: str | None = None
    times: Annotated[int, Field(ge=1, le=10_000)] = 1


def webhook_routes(account: Account, courier: Courier) -> list[Route]:
    """`webhooks`, `deliveries`, `disturbances` and `events`."""

    async def add(request: Request) -> JSONResponse:
        order = await read_order(request, webhook_endpoints.Order)
        return JSONResponse(public(webhook_endpoints.add(account, order)))

    async def roll(request: Request) -> JSONResponse:
        endpoint = _find(account, "webhook_endpoint", request.path_params["id"])
        webhook_endpoints.roll(account, endpoint, await read_order(request, webhook_endpoints.Roll))
        return JSONResponse(public(endpoint))

    async def remove(request: Request) -> JSONResponse:
        endpoint = _find(account, "webhook_endpoint", request.path_params["id"])
        del account.table("webhook_endpoint")[endpoint["id"]]
        return JSONResponse({"deleted": endpoint["id"]})

    async def deliveries(request: Request) -> JSONResponse:
        try:
            after = int(request.query_params.get("after", 0))
            limit = int(request.query_params.get("limit", _PAGE))
        except ValueError:
            raise HTTPException(400, "after and limit are whole numbers") from None
        rows = courier.journal[after : after + limit]
        more = after + len(rows) < len(courier.journal)
        return JSONResponse({"deliveries": rows, "has_more": more, **courier.state()})

    async def resend(request: Request) -> JSONResponse:
        order = await read_order(request, Resend)
        for each in order.events or ():
            _find(account, "event", each)
        return JSONResponse({"sent": await courier.resend(order)})

    async def disturb(request: Request) -> JSONResponse:
        courier.disturb(await read_order(request, Disturbance))
        return JSONResponse(courier.state())

    async def calm(_: Request) -> JSONResponse:
        courier.calm()
        return JSONResponse(courier.state())

    async def emit(request: Request) -> JSONResponse:
        order = await read_order(request, Emission)
        if order.event is not None:
            event = _find(account, "event", order.event)
            made = [events.again(account, event) for _ in range(order.times)]
        elif order.type and order.kind and order.id:
            obj = _find(account, order.kind, order.id)
            made = [events.emit(account, order.type, obj) for _ in range(order.times)]
        else:
            raise HTTPException(400, "say which event, or type, kind and id")
        return JSONResponse({"events": [each["id"] for each in made]})

    return [
        Route("/_sandbox/webhooks", add, methods=["POST"]),
        Route("/_sandbox/webhooks/{id}", remove, methods=["DELETE"]),
        Route("/_sandbox/webhooks/{id}/secret", roll, methods=["POST"]),
        Route("/_sandbox/deliveries", deliveries, methods=["GET"]),
        Route("/_sandbox/deliveries", resend, methods=["POST"]),
        Route("/_sandbox/disturbances", disturb, methods=["POST"]),
        Route("/_sandbox/disturbances", calm, methods=["DELETE"]),
        Route("/_sandbox/events", emit, methods=["POST"]),
    ]


def _find(account: Account, kind: str, object_id: str) -> Obj:
    try:
        return account.table(kind)[object_id]
    except KeyError:
        raise HTTPException(404, f"no {kind} {object_id!r}") from None
