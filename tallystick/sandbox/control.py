"""The control routes that every stand-in has under `/_sandbox`: faults, holds and the clock.

They share the port of the API they disturb, so one address is all that a drill or a demo in
another process needs.
"""

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tallystick.sandbox.clock import ClockOrder, SettableClock
from tallystick.sandbox.faults import BadFaultOrderError, FaultOrder, Faults
from tallystick.sandbox.holds import HoldOrder, Holds

M = TypeVar("M", bound=BaseModel)


async def read_order(request: Request, model: type[M]) -> M:
    """Parse the body of a control call, or answer 400 in words."""
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        raise HTTPException(400, str(error)) from None


def fault_routes(faults: Faults[Any]) -> list[Route]:
    """`/_sandbox/faults`: GET what is armed, POST a `FaultOrder`, DELETE all."""

    async def show(_: Request) -> JSONResponse:
        return JSONResponse(faults.state())

    async def add(request: Request) -> JSONResponse:
        try:
            faults.add(await read_order(request, FaultOrder))
        except BadFaultOrderError as error:
            raise HTTPException(400, str(error)) from None
        return JSONResponse(faults.state())

    async def clear(_: Request) -> JSONResponse:
        faults.clear()
        return JSONResponse(faults.state())

    path = "/_sandbox/faults"
    return [
        Route(path, show, methods=["GET"]),
        Route(path, add, methods=["POST"]),
        Route(path, clear, methods=["DELETE"]),
    ]


def hold_routes(holds: Holds) -> list[Route]:
    """`/_sandbox/holds`: GET them, POST a `HoldOrder`, DELETE all or `/{id}` to release."""

    async def show(_: Request) -> JSONResponse:
        return JSONResponse({"holds": holds.state()})

    async def add(request: Request) -> JSONResponse:
        return JSONResponse({"id": holds.add(await read_order(request, HoldOrder))})

    async def release(request: Request) -> JSONResponse:
        hold_id = request.path_params.get("hold_id")
        try:
            return JSONResponse({"released": holds.release(hold_id)})
        except KeyError:
            raise HTTPException(404, f"no hold {hold_id!r}") from None

    path = "/_sandbox/holds"
    return [
        Route(path, show, methods=["GET"]),
        Route(path, add, methods=["POST"]),
        Route(path, release, methods=["DELETE"]),
        Route(path + "/{hold_id}", release, methods=["DELETE"]),
    ]


def clock_routes(clock: SettableClock) -> list[Route]:
    """`/_sandbox/clock`: GET the time, POST a `ClockOrder` to set it; it only goes forward."""

    async def show(_: Request) -> JSONResponse:
        return JSONResponse(clock.state())

    async def set_clock(request: Request) -> JSONResponse:
        order = await read_order(request, ClockOrder)
        if order.now is not None and order.now < clock():
            raise HTTPException(400, f"the clock shows {clock():.3f} and only goes forward")
        clock.set(order)
        return await show(request)

    path = "/_sandbox/clock"
    return [Route(path, show, methods=["GET"]), Route(path, set_clock, methods=["POST"])]
