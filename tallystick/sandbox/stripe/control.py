"""What a drill asks this Stripe about itself, under `/_sandbox`."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.events import METER_ERRORS
from tallystick.sandbox.stripe.wire import public

_PAGE = 1_000


def journal_routes(account: Account) -> list[Route]:
    """`journal?after=N&limit=M` (entries numbered above N), `totals`, `error_reports`."""

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

    async def error_reports(_: Request) -> JSONResponse:
        thin = account.table("thin event").values()
        reports = [public(event) for event in thin if event["type"] in METER_ERRORS]
        return JSONResponse({"error_reports": reports})

    return [
        Route("/_sandbox/journal", journal, methods=["GET"]),
        Route("/_sandbox/totals", totals, methods=["GET"]),
        Route("/_sandbox/error_reports", error_reports, methods=["GET"]),
    ]
