"""The control routes of this stand-in alone: its journal, its totals, its latency, its pace."""

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tallystick.sandbox.claude.batches import BatchPace
from tallystick.sandbox.claude.latency import Latency
from tallystick.sandbox.claude.service import ClaudeService
from tallystick.sandbox.control import read_order

_PAGE = 1_000


def control_routes(service: ClaudeService) -> list[Route]:
    """`/_sandbox/journal?after=&limit=`, `totals`, `latency`, `batches` (their pace)."""

    async def journal(request: Request) -> JSONResponse:
        query = request.query_params
        try:
            after, limit = int(query.get("after", 0)), int(query.get("limit", _PAGE))
        except ValueError:
            return JSONResponse({"error": "after and limit are whole numbers"}, 400)
        service.batches.advance()
        return JSONResponse(service.journal.page(max(after, 0), min(max(limit, 1), _PAGE)))

    async def totals(_: Request) -> JSONResponse:
        service.batches.advance()
        return JSONResponse({**service.journal.totals(), "calls": dict(service.calls)})

    async def show_latency(_: Request) -> JSONResponse:
        return JSONResponse(service.latency.model_dump())

    async def set_latency(request: Request) -> JSONResponse:
        service.latency = await read_order(request, Latency)
        return await show_latency(request)

    async def show_pace(_: Request) -> JSONResponse:
        return JSONResponse(service.batches.pace.model_dump())

    async def set_pace(request: Request) -> JSONResponse:
        service.batches.pace = await read_order(request, BatchPace)
        return await show_pace(request)

    return [
        Route("/_sandbox/journal", journal, methods=["GET"]),
        Route("/_sandbox/totals", totals, methods=["GET"]),
        Route("/_sandbox/latency", show_latency, methods=["GET"]),
        Route("/_sandbox/latency", set_latency, methods=["POST"]),
        Route("/_sandbox/batches", show_pace, methods=["GET"]),
        Route("/_sandbox/batches", set_pace, methods=["POST"]),
    ]
