"""The web process: opens what the app needs, serves it, and stops cleanly.

SIGTERM and SIGINT stop listening at once and let requests in flight finish; an event is committed
or its delivery has failed, there is nothing in between. A process that is killed is missed by
nobody but Stripe, which delivers again.
"""

import asyncio
import logging
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack

from pydantic import SecretStr
from starlette.types import ASGIApp

from activities.event_forwarding import EventForwarder
from activities.stripe_clients import stripe_client
from tallystick.ledger.database import Ledger
from tallystick.ledger.migrate import require_current
from tallystick.payloads.codec import PayloadEncryption
from tallystick.payloads.ledger_storage import LedgerStorage
from tallystick.services import database, endpoints
from tallystick.settings import SANDBOX_WEBHOOK_SECRET, Settings, SettingsError
from tallystick.temporal import connect_temporal
from tallystick.web.app import create_app, utc_now
from tallystick.web.codec import codec_server
from tallystick.web.forwarder import BackgroundForwarder
from tallystick.web.health import Thresholds
from tallystick.web.serving import serve

log = logging.getLogger("tallystick.web")


async def run_web(settings: Settings, *, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT. Temporal may be away, also at the start.

    Raises:
        SettingsError: when the keys are half set, there is no signing secret, or the address cannot
            be listened on.
        LedgerUnavailableError: when PostgreSQL does not answer.
        TallystickError: when the database is not set up.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    secrets = signing_secrets(settings)
    async with AsyncExitStack() as stack:
        where = await stack.enter_async_context(endpoints(settings))
        if "stripe" in where.sandboxed:
            log.warning("the sandbox stands in for stripe: no real service is called")
        url = stack.enter_context(database(settings))
        await asyncio.to_thread(require_current, url)
        ledger = Ledger(url, pool_size=settings.ledger_concurrency)
        stack.push_async_callback(ledger.close)
        stripe = await stack.enter_async_context(stripe_client(where, settings, url))
        forwarder = BackgroundForwarder(
            EventForwarder(ledger, stripe, utc_now),
            lambda: connect_temporal(settings.temporal_address),
        )
        await stack.enter_async_context(forwarder.running())
        app = create_app(
            ledger,
            secrets,
            thresholds=Thresholds(settings.inbox_alert_age, settings.inbox_alert_depth),
            wake=forwarder.wake,
            codec=_codec_server(settings, ledger),
        )
        address = await stack.enter_async_context(serve(app, host=host, port=port))
        log.info("serving on %s", address)
        await stop.wait()
        log.info("stopping: requests in flight are finished")


def _codec_server(settings: Settings, ledger: Ledger) -> ASGIApp | None:
    if settings.codec_token is None:
        return None
    return codec_server(
        PayloadEncryption(settings.keyring),
        LedgerStorage(ledger),
        token=settings.codec_token,
        origins=settings.codec_origins,
    )


def signing_secrets(settings: Settings) -> Sequence[SecretStr]:
    """Return the secrets that Stripe, or its stand-in, signs webhooks with.

    Raises:
        SettingsError: when a real Stripe is used and none is set.
    """
    if settings.stripe_webhook_secret:
        return settings.stripe_webhook_secret
    if "stripe" in settings.sandboxed:
        return [SecretStr(SANDBOX_WEBHOOK_SECRET)]
    raise SettingsError(
        "STRIPE_WEBHOOK_SECRET is not set; give the signing secret of each webhook endpoint, "
        "separated by commas"
    )
