"""Where Stripe sends its events: one endpoint for whole events, one for thin ones.

Both are looked for by their address before they are made, so registering again makes nothing. A
secret is in the answer that makes an endpoint and in no other; where that answer is lost, the
endpoint is to be deleted in Stripe's dashboard and registered anew.

The endpoint for whole events is bound to the API version that this code was written for: what it
sends follows the endpoint, whatever the account's default becomes (facts on Stripe, 'SDK'). Only
thin events tell of meter events that were rejected after their receipt.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import stripe
from stripe import StripeClient

from activities.stripe_clients import in_words
from activities.stripe_once import create_once
from tallystick.stripe_events import METER_REPORTS

SNAPSHOT_EVENTS: tuple[str, ...] = (
    *(
        f"invoice.{what}"
        for what in (
            "created", "deleted", "finalization_failed", "finalized", "marked_uncollectible",
            "overdue", "overpaid", "paid", "payment_action_required", "payment_failed",
            "payment_succeeded", "sent", "updated", "voided",
        )
    ),
    *(
        f"customer.subscription.{what}"
        for what in ("created", "deleted", "paused", "resumed", "updated")
    ),
    "customer.updated",
    *(f"customer.source.{what}" for what in ("created", "deleted", "expiring", "updated")),
    *(
        f"payment_method.{what}"
        for what in ("attached", "automatically_updated", "detached", "updated")
    ),
)  # fmt: skip
"""Everything that is a reason to look at something (`tallystick.stripe_events`)."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """An endpoint at Stripe. `secret` is None where it was there before: it is shown only once."""

    form: Literal["snapshot", "thin"]
    id: str
    url: str
    secret: str | None


async def ensure_webhooks(client: StripeClient, url: str) -> list[Webhook]:
    """Have Stripe send events to `url` in both forms; what is there already stays as it is.

    Raises:
        TallystickError: saying what Stripe answered.
    """
    with in_words():
        return [await _snapshot(client, url), await _thin(client, url)]


async def _snapshot(client: StripeClient, url: str) -> Webhook:
    service = client.v1.webhook_endpoints
    version = stripe.api_version
    listed = await service.list_async({"limit": 100})
    async for found in listed.auto_paging_iter():
        fits = found.url == url and found.api_version == version and found.status == "enabled"
        if fits and {*SNAPSHOT_EVENTS} <= {*found.enabled_events}:
            return Webhook("snapshot", found.id, url, None)
    params: Any = {
        "url": url,
        "enabled_events": list(SNAPSHOT_EVENTS),
        "api_version": version,
        "description": "Tallystick",
    }
    made = await create_once(service.create_async, params, _key("snapshot", params))
    return Webhook("snapshot", made.id, url, made.secret)


async def _thin(client: StripeClient, url: str) -> Webhook:
    service = client.v2.core.event_destinations
    listed = await service.list_async({"include": ["webhook_endpoint.url"], "limit": 100})
    async for found in listed.auto_paging_iter():
        endpoint = found.webhook_endpoint
        fits = (
            endpoint is not None
            and endpoint.url == url
            and (found.event_payload, found.status) == ("thin", "enabled")
        )
        if fits and {*METER_REPORTS} <= {*found.enabled_events}:
            return Webhook("thin", found.id, url, None)
    params: Any = {
        "name": "Tallystick",
        "type": "webhook_endpoint",
        "event_payload": "thin",
        "enabled_events": list(METER_REPORTS),
        "webhook_endpoint": {"url": url},
        "include": ["webhook_endpoint.signing_secret"],
    }
    made = await create_once(service.create_async, params, _key("thin", params))
    secret = made.webhook_endpoint.signing_secret if made.webhook_endpoint else None
    return Webhook("thin", made.id, url, secret)


def _key(form: str, params: Mapping[str, Any]) -> str:
    told = "\n".join(f"{name}={value}" for name, value in sorted(params.items()))
    return f"tallystick-webhook-{form}-{hashlib.sha256(told.encode()).hexdigest()}"
