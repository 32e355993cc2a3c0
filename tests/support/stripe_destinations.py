"""Stripe's event destinations, which the stand-in does not have, beside all that it has."""

import json
import secrets
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tallystick.sandbox.stripe import create_stripe_app

PATH = "/v2/core/event_destinations"


class WithDestinations:
    """An ASGI app: a fresh stand-in, and event destinations that can be made and listed."""

    def __init__(self) -> None:
        self.stripe: ASGIApp = create_stripe_app()
        self.made: list[dict[str, Any]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH:
            await self.stripe(scope, receive, send)
            return
        request = Request(scope, receive)
        if request.method == "POST":
            answer = self._make(json.loads(await request.body()))
        else:
            shown = [{**each, "webhook_endpoint": self._shown(each)} for each in self.made]
            answer = {"data": shown, "next_page_url": None, "previous_page_url": None}
        await JSONResponse(answer)(scope, receive, send)

    def _make(self, params: dict[str, Any]) -> dict[str, Any]:
        secret = f"whsec_{secrets.token_hex(16)}"
        made = {
            "id": f"ed_{secrets.token_hex(8)}",
            "object": "v2.core.event_destination",
            "created": "2026-11-30T12:00:00.000Z",
            "updated": "2026-11-30T12:00:00.000Z",
            "description": "",
            "livemode": True,
            "status": "enabled",
            **{name: params[name] for name in ("name", "type", "event_payload", "enabled_events")},
            "webhook_endpoint": {"url": params["webhook_endpoint"]["url"]},
        }
        self.made.append(made)
        return {**made, "webhook_endpoint": {"signing_secret": secret}}

    def _shown(self, made: dict[str, Any]) -> dict[str, Any]:
        return {"url": made["webhook_endpoint"]["url"]}
