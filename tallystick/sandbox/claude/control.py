"""The control routes of this stand-in alone: its journal, its totals and its latency."""

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tallystick.sandbox.claude.latency import Latency
from tallystick.sandbox.claude.service import ClaudeService
from tallystick.sandbox.control import read_order

_PAGE = 1_000


def control_routes(service: ClaudeService) -> list[Route]:
    """`/_sandbox/journal?after=&limit=`, `/_sandbox/totals`, `/_sandbox/latency`."""

    async def journal(request: Request) -> JSONResponse:
        query = request.query_params
        try:
            after, limit = int(query.get("after", 0)), int(query.get("limit", _PAGE))
        except ValueError:
            return JSONResponse({"error": "after and limit are whole numbers"}, 400)
        return JSONResponse(service.journal.page(max(after, 0), min(max(limit, 1), _PAGE)))

    async def totals(_: Request) -> JSONResponse:
        return JSONResponse(service.journal.totals())

    async def show_latency(_: Request) -> JSONResponse:
        return JSONResponse(service.latency.model_dump())

    async def set_latency(request: Request) -> JSONResponse:
        service.latency = await read_order(request, Latency)
        return await show_latency(request)

    return [
        Route("/_sandbox/journal", journal, methods=["GET"]),
        Route("/_sandbox/totals", totals, methods=["GET"]),
        Route("/_sandbox/latency", show_latency, methods=["GET"]),
        Route("/_sandbox/latency", set_latency, methods=["POST"]),
    ]
