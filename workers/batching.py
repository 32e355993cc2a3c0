"""What a worker registers for message batches, on clients that close with it."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from activities.batch_api import BatchApi
from activities.batches import BatchPace, batch_activities
from tallystick.contracts import MeterOrder, MeterReceipt
from tallystick.ledger.database import Ledger
from tallystick.payloads.columns import ColumnSeal
from tallystick.plans.batching import ShardLimits
from tallystick.services import Endpoints
from tallystick.settings import Settings


@asynccontextmanager
async def batching(
    ledger: Ledger,
    where: Endpoints,
    settings: Settings,
    send_meter_events: Callable[[MeterOrder], Awaitable[MeterReceipt]],
    on_news: Callable[[str], None],
) -> AsyncGenerator[list[Callable[..., Any]], None]:
    """Yield the activities of batch jobs."""
    api = BatchApi(
        where.anthropic_api_key.get_secret_value(),
        where.anthropic_base_url,
        timeout=settings.claude_timeout,
    )
    pace = BatchPace(
        limits=ShardLimits(settings.batch_requests, settings.batch_bytes),
        poll=settings.batch_poll,
        looked_for=timedelta(seconds=settings.batch_looked_for),
    )
    try:
        seal = ColumnSeal(settings.keyring)
        yield batch_activities(ledger, api, send_meter_events, pace, seal=seal, on_news=on_news)
    finally:
        await api.close()
