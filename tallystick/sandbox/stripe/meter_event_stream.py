"""The meter event stream: a short-lived token, then up to 100 events a call.

The answer says nothing about single events: a duplicate or a bad event inside an accepted call
ends in an error report. Only live-mode keys may open a session (facts on Stripe, 'Meters').
"""

import secrets
from typing import Annotated

from pydantic import Field

from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.endpoint import Call, Endpoint
from tallystick.sandbox.stripe.meter_events import (
    V2Create,
    accept,
    timestamp_trouble,
)
from tallystick.sandbox.stripe.wire import Obj, Refusal, V2Params, rfc3339, unix_seconds

SESSION_SECONDS = 15 * 60


class Session(V2Params):
    """A session is opened without parameters."""


class Stream(V2Params):
    """One call's events."""

    events: Annotated[list[V2Create], Field(min_length=1, max_length=100)]


def _with_session(account: Account, token: str) -> bool:
    expires = account.sessions.get(token)
    if expires is None:
        raise Refusal(401, "Invalid authentication token.", code="unauthorized")
    if account.clock() >= expires:
        raise Refusal(
            400,
            "The temporary session token has expired.",
            code="billing_meter_event_session_expired",
            type="temporary_session_expired",
        )
    return True


async def open_session(call: Call, _: Session) -> Obj:
    """Give a token for 15 minutes."""
    if not call.livemode:
        raise Refusal(403, "Meter event streams are for live mode only.", code="forbidden")
    account, now = call.account, call.account.clock()
    token = f"token_{secrets.token_hex(16)}"
    account.sessions[token] = now + SESSION_SECONDS
    return {
        "object": "v2.billing.meter_event_session",
        "id": f"mtrs_{secrets.token_hex(8)}",
        "authentication_token": token,
        "created": rfc3339(now),
        "expires_at": rfc3339(now + SESSION_SECONDS),
        "livemode": True,
    }


async def stream(call: Call, params: Stream) -> Obj:
    """Take the events; each counts or is rejected on its own, later."""
    account = call.account
    for event in params.events:
        now = account.clock()
        timestamp = int(now) if event.timestamp is None else unix_seconds(event.timestamp)
        identifier = event.identifier or secrets.token_hex(16)
        duplicate = account.journal.knows(identifier, now)
        accept(
            call,
            event_name=event.event_name,
            payload=event.payload,
            identifier=identifier,
            timestamp=timestamp,
            sample=identifier,  # what the real reports say of streamed events is not documented
            rejected="duplicate_meter_event" if duplicate else timestamp_trouble(timestamp, now),
        )
    return {}


ENDPOINTS = [
    Endpoint("POST", "/v2/billing/meter_event_session", Session, open_session),
    Endpoint("POST", "/v2/billing/meter_event_stream", Stream, stream, _with_session),
]
