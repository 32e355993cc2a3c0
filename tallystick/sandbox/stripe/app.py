"""The Stripe stand-in as an ASGI app: every call passes the same gates in the same order.

Count it, meet a fault, wait in a hold, check the key, look for a kept answer, work, keep the
answer, wait in a hold, answer. Work and journal come before `no_answer` and before a hold at
`served`, so an answer that never leaves has counted: the case that makes billers count twice.
"""

import asyncio
import itertools
import json
import time

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tallystick.sandbox.clock import Clock
from tallystick.sandbox.control import fault_routes, hold_routes
from tallystick.sandbox.faults import FaultOrder, Faults
from tallystick.sandbox.holds import Holds
from tallystick.sandbox.server import connection_of
from tallystick.sandbox.stripe import (
    balances,
    catalog,
    customers,
    drafts,
    events,
    faults,
    invoice_items,
    invoice_payments,
    invoices,
    meter_event_stream,
    meter_events,
    meters,
    payment_methods,
    subscriptions,
    webhook_endpoints,
)
from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.billing_control import billing_routes
from tallystick.sandbox.stripe.control import journal_routes
from tallystick.sandbox.stripe.courier import Courier
from tallystick.sandbox.stripe.endpoint import Call, Endpoint
from tallystick.sandbox.stripe.expand import expanded
from tallystick.sandbox.stripe.faults import StripeFault
from tallystick.sandbox.stripe.idempotency import Answer, Replays
from tallystick.sandbox.stripe.webhook_control import webhook_routes
from tallystick.sandbox.stripe.wire import Obj, Refusal, decode_form, parse, public

_RESOURCES = (
    customers,
    balances,
    payment_methods,
    catalog,
    meters,
    meter_events,
    meter_event_stream,
    subscriptions,
    invoice_items,
    invoices,
    invoice_payments,
    events,
    webhook_endpoints,
)


class _Cut(Response):
    """No answer: the connection is reset."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection_of(scope).reset()


class _Gates:
    def __init__(self, account: Account, armed: Faults[StripeFault], holds: Holds):
        self._account, self._faults, self._holds = account, armed, holds
        self._replays = Replays()
        self._request_ids = itertools.count(1)

    def route(self, endpoint: Endpoint) -> Route:
        async def answer(request: Request) -> Response:
            return await self._answer(endpoint, request)

        return Route(endpoint.path, answer, methods=[endpoint.method])

    async def _answer(self, endpoint: Endpoint, request: Request) -> Response:
        body = await request.body()
        seen = f"{request.method} {request.url.path}?{request.url.query}\n".encode() + body
        self._account.arrived(f"{endpoint.method} {endpoint.path}")
        fault = self._faults.pick(seen, lambda fault: fault.fits(endpoint.path))
        match fault:
            case faults.Slow():
                await asyncio.sleep(fault.seconds)
            case faults.Unavailable():
                return HTMLResponse("<html><h1>503 Service Unavailable</h1></html>", 503)
            case faults.Reset():
                return _Cut()
            case _:
                pass
        await self._holds.pause("received", seen)
        answer = await self._replay_or_work(endpoint, request, body, fault)
        await self._holds.pause("served", seen)
        if isinstance(fault, faults.NoAnswer):
            return _Cut()
        headers = {"Request-Id": f"req_{next(self._request_ids)}", **answer.headers}
        return Response(answer.body, answer.status, headers, "application/json")

    async def _replay_or_work(
        self, endpoint: Endpoint, request: Request, body: bytes, fault: StripeFault | None
    ) -> Answer:
        try:
            bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
            livemode = endpoint.authenticate(self._account, bearer)
            key = request.headers.get("idempotency-key") if endpoint.method == "POST" else None
            fingerprint = request.url.path.encode() + b"\n" + body
            kept = self._replays.begin(key, fingerprint, self._account.clock()) if key else None
        except Refusal as refusal:
            return _refused(refusal, endpoint)
        if kept is not None:
            return kept.replayed()
        call = Call(
            self._account, request.url.path, dict(request.path_params), livemode, key, fault
        )
        answer: Answer | None = None
        try:
            answer = await self._work(endpoint, call, request.url.query, body)
            return answer
        finally:
            if key:
                self._replays.end(key, answer)

    async def _work(self, endpoint: Endpoint, call: Call, query: str, body: bytes) -> Answer:
        try:
            _fail_on_demand(call.fault)
            params = parse(endpoint.params, _decode(endpoint, query, body))
            self._account.clock.catch_up()
            result: Obj = await endpoint.handle(call, params)
            paths: list[str] = getattr(params, "expand", None) or []
            shown = public(expanded(self._account, result, paths))
        except Refusal as refusal:
            return _refused(refusal, endpoint)
        return Answer(200, json.dumps(shown).encode(), {}, kept=True)


def _decode(endpoint: Endpoint, query: str, body: bytes) -> object:
    if endpoint.method in ("GET", "DELETE"):
        return decode_form(query)
    if not endpoint.v2:
        return decode_form(body.decode())
    try:
        return json.loads(body or b"{}")
    except ValueError:
        raise Refusal(400, "The body is not JSON.", code="invalid_request") from None


def _fail_on_demand(fault: StripeFault | None) -> None:
    match fault:
        case faults.RateLimited():
            headers = {"Stripe-Rate-Limited-Reason": fault.reason} if fault.reason else {}
            if fault.retry_after is not None:
                headers["Retry-After"] = f"{fault.retry_after:g}"
            raise Refusal(429, "Request rate limit exceeded.", code="rate_limit", headers=headers)
        case faults.ServerError():
            raise Refusal(500, "An unknown error occurred.", type="api_error", replayed=True)
        case faults.Refused():
            raise Refusal(fault.status, fault.message, code=fault.code)
        case _:
            pass


def _refused(refusal: Refusal, endpoint: Endpoint) -> Answer:
    return Answer(
        refusal.status,
        json.dumps(refusal.body(v2=endpoint.v2)).encode(),
        dict(refusal.headers),
        kept=refusal.replayed and not endpoint.v2,
    )


def _unknown(account: Account, version: str) -> Route:
    async def answer(request: Request) -> Response:
        path = f"{request.method} {request.url.path}"
        account.arrived(path)
        refusal = Refusal(404, f"Unrecognized request URL ({path}).")
        body = refusal.body(v2=version == "v2")
        return Response(json.dumps(body), 404, media_type="application/json")

    return Route(f"/{version}/{{rest:path}}", answer, methods=["GET", "POST", "DELETE"])


def _heard(account: Account, event: Obj) -> None:
    """Let a draft's hour begin when the last of those who wanted to know of it has answered."""
    if event["type"] == "invoice.created":
        drafts.delivered(account, event["data"]["object"]["id"])


def create_stripe_app(
    *,
    clock: Clock = time.time,
    order: FaultOrder | None = None,
    summary_lag: float = 0,
    event_seconds: float = 0.001,
) -> Starlette:
    """Return a fresh Stripe; its `Account` is at `app.state.account`.

    Args:
        clock: Unix seconds, by which windows, tokens and kept answers are judged.
        order: faults armed from the start.
        summary_lag: seconds until summaries show a received event.
        event_seconds: how long one meter event occupies its customer and meter.
    """
    account = Account(clock, summary_lag=summary_lag, event_seconds=event_seconds)
    courier = Courier(account, lambda event: _heard(account, event))
    armed, holds = Faults(faults.KINDS, order), Holds()
    gates = _Gates(account, armed, holds)
    app = Starlette(
        routes=[
            *(gates.route(each) for resource in _RESOURCES for each in resource.ENDPOINTS),
            *journal_routes(account),
            *billing_routes(account, courier.settled),
            *webhook_routes(account, courier),
            *fault_routes(armed),
            *hold_routes(holds),
            _unknown(account, "v1"),
            _unknown(account, "v2"),
        ]
    )
    app.state.account = account
    return app
