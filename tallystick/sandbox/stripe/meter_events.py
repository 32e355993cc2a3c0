"""Meter events one by one (v1 and v2), and their cancellation.

A 200 is a receipt. v1 checks little before it gives one; v2 also checks meter and payload. What
is wrong beyond that ends in an error report and does not count.
"""

import re
import secrets
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.endpoint import Call, Endpoint
from tallystick.sandbox.stripe.events import report_meter_error
from tallystick.sandbox.stripe.faults import (
    CountedTwice,
    DuplicateReported,
    EventFault,
    LostEvent,
    RejectedLater,
    WrongCustomer,
)
from tallystick.sandbox.stripe.journal import Entry
from tallystick.sandbox.stripe.meters import meter_for
from tallystick.sandbox.stripe.wire import (
    Obj,
    Params,
    Refusal,
    V2Params,
    rfc3339,
    unix_seconds,
)

PAST_SECONDS = 35 * 86400
FUTURE_SECONDS = 5 * 60
LOST = "lost"
"""What the journal calls an event that was lost: no code of Stripe's, which tells nobody of it."""
_MAX_DIGITS = 15
_INTEGER = re.compile(r"-?\d+")

Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Payload = Annotated[
    dict[str, Annotated[str, StringConstraints(max_length=100)]], Field(min_length=1)
]


class Create(Params):
    """A v1 meter event; `timestamp` in Unix seconds."""

    event_name: Name
    payload: Payload
    identifier: Name | None = None
    timestamp: int | None = None


class V2Create(V2Params):
    """A v2 meter event; `timestamp` in RFC 3339."""

    event_name: Name
    payload: Payload
    identifier: Name | None = None
    timestamp: str | None = None


class _Cancel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    identifier: Name


class Adjust(Params):
    """A v1 cancellation of one event."""

    event_name: Name
    type: Literal["cancel"]
    cancel: _Cancel


class V2Adjust(V2Params):
    """A v2 cancellation of one event."""

    event_name: Name
    type: Literal["cancel"]
    cancel: _Cancel


def _keys(meter: Obj | None) -> tuple[str, str]:
    if meter is None:
        return "stripe_customer_id", "value"
    return (
        meter["customer_mapping"]["event_payload_key"],
        meter["value_settings"]["event_payload_key"],
    )


def timestamp_trouble(timestamp: int, now: float) -> str | None:
    """Return the code of a timestamp that is out of bounds."""
    if timestamp < now - PAST_SECONDS:
        return "timestamp_too_far_in_past"
    return "timestamp_in_future" if timestamp > now + FUTURE_SECONDS else None


def _trouble(account: Account, meter: Obj | None, payload: dict[str, str]) -> str | None:
    """Return the code of what would keep an event from counting."""
    if meter is None:
        return "no_meter"
    if meter["status"] != "active":
        return "archived_meter"
    customer_key, value_key = _keys(meter)
    if customer_key not in payload:
        return "meter_event_no_customer_defined"
    known = payload[customer_key] in account.table("customer")
    return _value_trouble(payload.get(value_key)) or (
        None if known else "meter_event_customer_not_found"
    )


def _value_trouble(value: str | None) -> str | None:
    if value is None or not _INTEGER.fullmatch(value):
        return "meter_event_invalid_value"
    if len(value.lstrip("-")) > _MAX_DIGITS:
        return "meter_event_value_too_many_digits"
    return None


_V2_REFUSES = {
    "no_meter": "no_meter",
    "archived_meter": "archived_meter",
    "meter_event_no_customer_defined": "payload_no_customer_defined",
    "meter_event_invalid_value": "payload_invalid_value",
    "meter_event_value_too_many_digits": "payload_invalid_value",
}


def accept(
    call: Call,
    *,
    event_name: str,
    payload: dict[str, str],
    identifier: str,
    timestamp: int,
    sample: str,
    rejected: str | None = None,
) -> Entry:
    """Enter an event into the journal; it counts unless something is wrong with it.

    `sample` is what an error report would name it by, `rejected` the code of a trouble found
    already.
    """
    account = call.account
    meter = meter_for(account, event_name)
    customer_key, value_key = _keys(meter)
    rejected = rejected or _trouble(account, meter, payload)
    met = isinstance(call.fault, EventFault) and call.fault.hits(identifier)
    fault = call.fault if met else None
    if isinstance(fault, RejectedLater):
        rejected = fault.code
    customer = fault.customer if isinstance(fault, WrongCustomer) else payload.get(customer_key)
    besides = {key: payload[key] for key in payload.keys() - {customer_key, value_key}}

    def enter() -> Entry:
        return account.journal.accept(
            path=call.path,
            identifier=identifier,
            event_name=event_name,
            customer=customer,
            value=payload.get(value_key),
            timestamp=timestamp,
            received_at=account.clock(),
            idempotency_key=call.idempotency_key,
            fault=fault.name if fault else None,
            besides=besides,
        )

    entry = enter()
    if rejected is not None:
        entry.rejected = rejected
        report_meter_error(account, rejected, sample=sample, meter=meter, livemode=call.livemode)
    elif isinstance(fault, LostEvent):
        entry.rejected = LOST
    elif isinstance(fault, CountedTwice):
        enter()
    return entry


async def _take(
    call: Call,
    *,
    event_name: str,
    payload: dict[str, str],
    identifier: str | None,
    timestamp: int | None,
    v2: bool,
) -> Entry:
    account, now = call.account, call.account.clock()
    timestamp = int(now) if timestamp is None else timestamp
    identifier = identifier or secrets.token_hex(16)
    if code := timestamp_trouble(timestamp, now):
        raise Refusal(400, f"Invalid timestamp: {code}.", code=code, param="timestamp")
    meter = meter_for(account, event_name)
    if v2 and (code := _V2_REFUSES.get(_trouble(account, meter, payload) or "")):
        raise Refusal(400, f"The event is not valid: {code}.", code=code)
    async with account.lane(payload.get(_keys(meter)[0], ""), event_name):
        duplicate = Refusal(
            400,
            f"An event already exists with identifier {identifier}.",
            code="duplicate_meter_event" if v2 else None,
            replayed=True,
        )
        if account.journal.knows(identifier, account.clock()):
            raise duplicate
        entry = accept(
            call,
            event_name=event_name,
            payload=payload,
            identifier=identifier,
            timestamp=timestamp,
            sample=call.idempotency_key or identifier,
        )
        if isinstance(call.fault, DuplicateReported):
            raise duplicate
        return entry


async def create(call: Call, params: Create) -> Obj:
    """Take a v1 event."""
    entry = await _take(
        call,
        event_name=params.event_name,
        payload=params.payload,
        identifier=params.identifier,
        timestamp=params.timestamp,
        v2=False,
    )
    return {
        "object": "billing.meter_event",
        "created": int(entry.received_at),
        "event_name": entry.event_name,
        "identifier": entry.identifier,
        "livemode": call.livemode,
        "payload": params.payload,
        "timestamp": entry.timestamp,
    }


async def create_v2(call: Call, params: V2Create) -> Obj:
    """Take a v2 event."""
    entry = await _take(
        call,
        event_name=params.event_name,
        payload=params.payload,
        identifier=params.identifier,
        timestamp=None if params.timestamp is None else unix_seconds(params.timestamp),
        v2=True,
    )
    return {
        "object": "v2.billing.meter_event",
        "created": rfc3339(entry.received_at),
        "event_name": entry.event_name,
        "identifier": entry.identifier,
        "livemode": call.livemode,
        "payload": params.payload,
        "timestamp": rfc3339(entry.timestamp),
    }


def _cancel(call: Call, event_name: str, identifier: str) -> None:
    account = call.account
    entry = account.journal.find(event_name, identifier, account.clock())
    if entry is None or entry.rejected is not None:
        raise Refusal(
            400,
            f"No event with identifier {identifier} was received within the past 24 hours.",
            code="resource_missing",
            param="cancel[identifier]",
        )
    entry.rejected = "cancelled"


async def adjust(call: Call, params: Adjust) -> Obj:
    """Cancel an event through v1."""
    _cancel(call, params.event_name, params.cancel.identifier)
    return {
        "object": "billing.meter_event_adjustment",
        "cancel": {"identifier": params.cancel.identifier},
        "event_name": params.event_name,
        "livemode": call.livemode,
        "status": "complete",
        "type": "cancel",
    }


async def adjust_v2(call: Call, params: V2Adjust) -> Obj:
    """Cancel an event through v2."""
    _cancel(call, params.event_name, params.cancel.identifier)
    return {
        "object": "v2.billing.meter_event_adjustment",
        "id": f"mtradj_{secrets.token_hex(8)}",
        "cancel": {"identifier": params.cancel.identifier},
        "created": rfc3339(call.account.clock()),
        "event_name": params.event_name,
        "livemode": call.livemode,
        "status": "complete",
        "type": "cancel",
    }


ENDPOINTS = [
    Endpoint("POST", "/v1/billing/meter_events", Create, create),
    Endpoint("POST", "/v2/billing/meter_events", V2Create, create_v2),
    Endpoint("POST", "/v1/billing/meter_event_adjustments", Adjust, adjust),
    Endpoint("POST", "/v2/billing/meter_event_adjustments", V2Adjust, adjust_v2),
]
