"""What a drill asks this Stripe about itself, under `/_sandbox`."""

import secrets
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tallystick.sandbox.control import read_order
from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.events import METER_ERRORS
from tallystick.sandbox.stripe.wire import public

_PAGE = 1_000


class OutsideEvent(BaseModel):
    """A meter event that did not come through the API; `timestamp` in Unix seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    event_name: str
    customer: str
    value: int
    timestamp: int
    identifier: Annotated[str, Field(default_factory=lambda: secrets.token_hex(16))]


class UsageOrder(BaseModel):
    """What is to be entered, in this order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    events: tuple[OutsideEvent, ...]


def journal_routes(account: Account) -> list[Route]:
    """`journal?after=N&limit=M` (entries numbered above N), `totals`, `arrivals`, `error_reports`,
    and `meter_usage`, which enters events that count whatever their age, duplicates too."""

    async def journal(request: Request) -> JSONResponse:
        try:
            after = int(request.query_params.get("after", 0))
            limit = int(request.query_params.get("limit", _PAGE))
        except ValueError:
            raise HTTPException(400, "after and limit are whole numbers") from None
        entries = account.journal.entries[after : after + limit]
        more = after + len(entries) < len(account.journal.entries)
        return JSONResponse({"entries": [entry.shown() for entry in entries], "has_more": more})

    async def totals(_: Request) -> JSONResponse:
        return JSONResponse({**account.journal.totals(), "calls": dict(account.calls)})

    async def arrivals(_: Request) -> JSONResponse:
        kept = [{"at": at, "call": call} for at, call in account.arrivals]
        return JSONResponse({"arrivals": kept})

    async def error_reports(_: Request) -> JSONResponse:
        thin = account.table("thin event").values()
        reports = [public(event) for event in thin if event["type"] in METER_ERRORS]
        return JSONResponse({"error_reports": reports})

    async def meter_usage(request: Request) -> JSONResponse:
        order = await read_order(request, UsageOrder)
        unknown = {event.customer for event in order.events} - account.table("customer").keys()
        if unknown:
            raise HTTPException(400, f"no customer {min(unknown)!r}")
        now = account.clock()
        for event in order.events:
            account.journal.accept(
                path=request.url.path,
                received_at=now,
                idempotency_key=None,
                **event.model_dump(exclude={"value"}),
                value=str(event.value),
            )
        return JSONResponse({"entered": len(order.events)})

    return [
        Route("/_sandbox/meter_usage", meter_usage, methods=["POST"]),
        Route("/_sandbox/journal", journal, methods=["GET"]),
        Route("/_sandbox/totals", totals, methods=["GET"]),
        Route("/_sandbox/arrivals", arrivals, methods=["GET"]),
        Route("/_sandbox/error_reports", error_reports, methods=["GET"]),
    ]
