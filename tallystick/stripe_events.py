"""What is kept of an event from Stripe: that it happened, and what it is a reason to look at.

An event is a reason to look and never a source of facts. Events come late, twice, in any order and
in the API version of whoever set the endpoint up; the object fetched again is none of that. So only
the envelope is read here, which all versions share, and the payload with its addresses and card
data is dropped before anything is stored (requirements 34, 38, 39, 75).

Both forms are read: a snapshot (v1) holds the object as it was, a thin event (v2) only names it.
Most changes can arrive in both (facts on Stripe, 'Corrections').
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import from_json

from tallystick.contracts import explain_validation


class Form(StrEnum):
    """How Stripe words an event; each form has a list of its own at Stripe."""

    SNAPSHOT = "snapshot"
    THIN = "thin"


class Look(StrEnum):
    """What an event is a reason to look at."""

    INVOICE = "invoice"
    SUBSCRIPTION = "subscription"
    CARD = "card"
    """How a customer pays; a new card may pay what an old one could not."""
    METER = "meter"
    """A report of meter events that Stripe took and rejected later; concerns many customers."""


METER_REPORTS = ("v1.billing.meter.error_report_triggered", "v1.billing.meter.no_meter_found")
"""Only thin events tell of rejected meter events (facts on Stripe, 'Meters')."""

_LOOKS: tuple[tuple[str, Look | None], ...] = (
    ("invoice.upcoming", None),  # of an invoice that does not exist yet
    ("invoice.", Look.INVOICE),
    ("customer.subscription.", Look.SUBSCRIPTION),
    ("customer.updated", Look.CARD),
    ("customer.source.", Look.CARD),
    ("payment_method.", Look.CARD),
    *((name.removeprefix("v1."), Look.METER) for name in METER_REPORTS),
)
"""The first prefix that fits decides; thin events are called the same behind `v1.`."""


def look_of(event_type: str) -> Look | None:
    """Return what an event of this type is a reason to look at; None for all that is no concern."""
    name = event_type.removeprefix("v1.")
    return next((look for prefix, look in _LOOKS if name.startswith(prefix)), None)


@dataclass(frozen=True, slots=True)
class Envelope:
    """What is kept of an event. `object_id` is what it happened to, where that has an id."""

    event_id: str
    type: str
    form: Form
    created_at: datetime
    api_version: str | None = None
    object_id: str | None = None
    stripe_customer_id: str | None = None


class UnreadableEventError(ValueError):
    """Stripe signed or listed it, and yet it is no event as we know them; the message says why.

    `event_id` is its own, or one made of its content, so that a redelivery is known for one.
    """

    def __init__(self, event_id: str, message: str):
        super().__init__(message)
        self.event_id = event_id


# Printable and short: an id goes into keys, paths of URLs and logs.
_Word = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,255}$")]


class _Reference(BaseModel):
    id: _Word


class _Object(BaseModel):
    object: _Word
    id: _Word | None = None
    customer: _Word | _Reference | None = None


class _Data(BaseModel):
    object: _Object


class _Snapshot(BaseModel):
    object: Literal["event"]
    id: _Word
    type: _Word
    created: Annotated[int, Field(ge=0, lt=2**37)]
    api_version: _Word | None = None
    data: _Data


class _Related(BaseModel):
    id: _Word
    type: _Word


class _Thin(BaseModel):
    object: Literal["v2.core.event"]
    id: _Word
    type: _Word
    created: AwareDatetime
    related_object: _Related | None = None


_EVENT: TypeAdapter[_Snapshot | _Thin] = TypeAdapter(
    Annotated[_Snapshot | _Thin, Field(discriminator="object")]
)
_NEEDS_AN_OBJECT = (Look.INVOICE, Look.SUBSCRIPTION)


def read_event(payload: bytes | Mapping[str, Any]) -> Envelope:
    """Return the envelope of an event as it was delivered (bytes) or listed (decoded).

    Raises:
        UnreadableEventError: naming the field that is missing or not what it should be.
    """
    value: Any = payload
    try:
        if isinstance(payload, bytes):
            value = from_json(payload)
        event = _EVENT.validate_python(value)
    except ValidationError as error:
        raise UnreadableEventError(_id_of(payload, value), explain_validation(error)) from None
    except ValueError:
        raise UnreadableEventError(_id_of(payload, value), "the body is not JSON") from None
    envelope = _of_thin(event) if isinstance(event, _Thin) else _of_snapshot(event)
    if look_of(envelope.type) in _NEEDS_AN_OBJECT and envelope.object_id is None:
        raise UnreadableEventError(
            envelope.event_id, f"{envelope.type} does not say what it happened to"
        )
    return envelope


def _of_snapshot(event: _Snapshot) -> Envelope:
    subject = event.data.object
    customer = subject.customer.id if isinstance(subject.customer, _Reference) else subject.customer
    return Envelope(
        event_id=event.id,
        type=event.type,
        form=Form.SNAPSHOT,
        created_at=datetime.fromtimestamp(event.created, UTC),
        api_version=event.api_version,
        object_id=subject.id,
        stripe_customer_id=subject.id if subject.object == "customer" else customer,
    )


def _of_thin(event: _Thin) -> Envelope:
    related = event.related_object
    return Envelope(
        event_id=event.id,
        type=event.type,
        form=Form.THIN,
        created_at=event.created.astimezone(UTC),
        object_id=related.id if related else None,
        stripe_customer_id=related.id if related and related.type == "customer" else None,
    )


def _id_of(payload: bytes | Mapping[str, Any], value: Any) -> str:
    try:
        return TypeAdapter(_Reference).validate_python(value).id
    except ValidationError:
        body = (
            payload if isinstance(payload, bytes) else json.dumps(payload, sort_keys=True).encode()
        )
        return f"unreadable-{hashlib.sha256(body).hexdigest()}"
