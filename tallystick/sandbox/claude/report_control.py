"""The control routes of the reports: their lag, usage from outside, lies, and names of keys."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tallystick.sandbox.claude.keys import key_id
from tallystick.sandbox.claude.outside import OutsideUsage
from tallystick.sandbox.claude.report_lies import Lie
from tallystick.sandbox.claude.reports import Reports
from tallystick.sandbox.control import read_order


class _Order(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LagOrder(_Order):
    """How many seconds the reports are behind."""

    lag: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class OutsideOrder(_Order):
    """Usage to be reported as well."""

    rows: tuple[OutsideUsage, ...]


class LieOrder(_Order):
    """Lies to be told as well."""

    lies: tuple[Lie, ...]


class KeyOrder(_Order):
    """A key whose id is asked for."""

    key: str


def report_control_routes(reports: Reports) -> list[Route]:
    """`/_sandbox/reports` (the lag), `/outside`, `/lies`, and `/_sandbox/key_id`."""

    async def show(_: Request) -> JSONResponse:
        lies = [lie.model_dump(mode="json", exclude_none=True) for lie in reports.lies]
        return JSONResponse({"lag": reports.lag, "lies": lies})

    async def set_lag(request: Request) -> JSONResponse:
        reports.lag = (await read_order(request, LagOrder)).lag
        return await show(request)

    async def add_outside(request: Request) -> JSONResponse:
        rows = (await read_order(request, OutsideOrder)).rows
        reports.add_outside(row.used() for row in rows)
        return JSONResponse({"rows": len(rows)})

    async def lie(request: Request) -> JSONResponse:
        reports.lie(*(await read_order(request, LieOrder)).lies)
        return await show(request)

    async def stop_lying(request: Request) -> JSONResponse:
        reports.stop_lying()
        return await show(request)

    async def name_key(request: Request) -> JSONResponse:
        return JSONResponse({"id": key_id((await read_order(request, KeyOrder)).key)})

    path = "/_sandbox/reports"
    return [
        Route(path, show, methods=["GET"]),
        Route(path, set_lag, methods=["POST"]),
        Route(path + "/outside", add_outside, methods=["POST"]),
        Route(path + "/lies", lie, methods=["POST"]),
        Route(path + "/lies", stop_lying, methods=["DELETE"]),
        Route("/_sandbox/key_id", name_key, methods=["POST"]),
    ]
