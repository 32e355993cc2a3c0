"""The ASGI app: every route there is, and what they share."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from fastapi import FastAPI
from pydantic import SecretStr
from starlette.types import ASGIApp

from tallystick.ledger.database import Ledger
from tallystick.web.health import Thresholds, health_routes
from tallystick.web.webhooks import Counts, webhook_routes


def utc_now() -> datetime:
    """Return the present."""
    return datetime.now(UTC)


def create_app(
    ledger: Ledger,
    secrets: Sequence[SecretStr],
    *,
    thresholds: Thresholds,
    wake: Callable[[], None],
    clock: Callable[[], datetime] = utc_now,
    codec: ASGIApp | None = None,
) -> FastAPI:
    """Return the app.

    Args:
        ledger: whose inbox it fills and reports on.
        secrets: Stripe's signing secrets, one for each endpoint; any of them may have signed.
        thresholds: from where on `/health` alerts.
        wake: called when something new is in the inbox.
        clock: tells the present.
        codec: the codec server, where there is one (`tallystick.web.codec`).
    """
    counts = Counts()
    # Its own documentation is left out: who calls these routes knows them.
    app = FastAPI(title="Tallystick", openapi_url=None, docs_url=None, redoc_url=None)
    app.include_router(webhook_routes(ledger, secrets, counts, wake, clock))
    app.include_router(health_routes(ledger, counts, thresholds, clock))
    if codec is not None:
        app.mount("/codec", codec)
    return app
