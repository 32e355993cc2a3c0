"""The stand-in as one ASGI app: the API's routes and the control routes on one port."""

import time

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tallystick.sandbox.claude.batch_calls import (
    CancelBatch,
    CreateBatch,
    DeleteBatch,
    ListBatches,
    RetrieveBatch,
)
from tallystick.sandbox.claude.batch_results import BatchResults
from tallystick.sandbox.claude.catalogue import GetModel, ListModels
from tallystick.sandbox.claude.control import control_routes
from tallystick.sandbox.claude.errors import ApiError
from tallystick.sandbox.claude.latency import Latency
from tallystick.sandbox.claude.messages import CountTokens, Messages
from tallystick.sandbox.claude.replies import new_id
from tallystick.sandbox.claude.report_calls import CostReport, UsageReport
from tallystick.sandbox.claude.report_control import report_control_routes
from tallystick.sandbox.claude.service import ClaudeService
from tallystick.sandbox.clock import Clock
from tallystick.sandbox.control import clock_routes, fault_routes, hold_routes
from tallystick.sandbox.faults import FaultOrder


def create_claude_app(
    *,
    faults: FaultOrder | None = None,
    latency: Latency | None = None,
    clock: Clock = time.time,
    minimum_cached_tokens: int = 1_024,
) -> Starlette:
    """Return a stand-in for Claude, to be served with `tallystick.sandbox.server.serve`.

    Its `ClaudeService` is at `app.state.service`.

    Args:
        faults: armed from the start.
        latency: how long replies take; none by default.
        clock: what the stand-in's own clock shows until it is set, in seconds since the epoch.
        minimum_cached_tokens: prefixes with fewer are not cached.

    Raises:
        BadFaultOrderError: the faults name one that there is not.
    """
    service = ClaudeService(
        faults=faults,
        latency=latency,
        clock=clock,
        minimum_cached_tokens=minimum_cached_tokens,
    )
    batches = "/v1/messages/batches"
    reports = "/v1/organizations/analytics"
    app = Starlette(
        routes=[
            Route("/v1/messages", Messages(service), methods=["POST"]),
            Route("/v1/messages/count_tokens", CountTokens(service), methods=["POST"]),
            Route(batches, CreateBatch(service), methods=["POST"]),
            Route(batches, ListBatches(service), methods=["GET"]),
            Route(batches + "/{batch_id}", RetrieveBatch(service), methods=["GET"]),
            Route(batches + "/{batch_id}", DeleteBatch(service), methods=["DELETE"]),
            Route(batches + "/{batch_id}/cancel", CancelBatch(service), methods=["POST"]),
            Route(batches + "/{batch_id}/results", BatchResults(service), methods=["GET"]),
            Route("/v1/models", ListModels(service), methods=["GET"]),
            Route("/v1/models/{model}", GetModel(service), methods=["GET"]),
            Route(reports + "/usage", UsageReport(service), methods=["GET"]),
            Route(reports + "/cost", CostReport(service), methods=["GET"]),
            *fault_routes(service.faults),
            *hold_routes(service.holds),
            *clock_routes(service.clock),
            *control_routes(service),
            *report_control_routes(service.reports),
        ],
        exception_handlers={404: _no_such_route, 405: _no_such_route},
    )
    app.state.service = service
    return app


async def _no_such_route(_: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 404
    request_id = new_id("req")
    body = ApiError(status, str(error)).body(request_id)
    return JSONResponse(body, status, {"request-id": request_id})
