"""`GET /health` and `GET /metrics`: how full the inbox is, and what was refused at the door.

The same figures twice: for a person or a monitor that asks one question (`alert`), and for
Prometheus. Counters are this process's own; the inbox is everybody's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse

from tallystick.ledger import inbox
from tallystick.ledger.database import Ledger, LedgerUnavailableError
from tallystick.ledger.inbox import Depth
from tallystick.web.webhooks import Counts


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From where on the inbox is worth an alert: seconds that an event waits, events that wait."""

    age: float
    depth: int


def health_routes(
    ledger: Ledger, counts: Counts, thresholds: Thresholds, clock: Callable[[], datetime]
) -> APIRouter:
    """Return the two routes; `clock` tells the present, from which ages count."""
    routes = APIRouter()

    async def look() -> tuple[Depth, float]:
        async with ledger.each() as tx:
            depth = await inbox.depth(tx)
        since = depth.oldest_received_at
        return depth, 0.0 if since is None else max(0.0, (clock() - since).total_seconds())

    @routes.get("/health")
    async def health() -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        signatures = {"signatures_rejected": dict(counts.rejected)}
        try:
            depth, age = await look()
        except LedgerUnavailableError:
            return JSONResponse({"alert": True, "why": ["the ledger is away"], **signatures}, 503)
        why = _alerts(depth, age, thresholds)
        state: dict[str, Any] = {
            "alert": bool(why),
            "why": why,
            "inbox": {
                "waiting": depth.waiting,
                "oldest_seconds": round(age, 1),
                "parked": depth.parked,
            },
        }
        return JSONResponse(state | signatures)

    @routes.get("/metrics")
    async def metrics() -> PlainTextResponse:  # pyright: ignore[reportUnusedFunction]
        lines = [
            *_family("webhooks_total", "counter", "outcome", counts.taken),
            *_family("webhooks_rejected_total", "counter", "reason", counts.rejected),
        ]
        try:
            depth, age = await look()
        except LedgerUnavailableError:
            up = 0
        else:
            up = 1
            states = {"waiting": depth.waiting, "parked": depth.parked}
            lines += [
                *_family("inbox_events", "gauge", "state", states),
                "# TYPE tallystick_inbox_oldest_seconds gauge",
                f"tallystick_inbox_oldest_seconds {age:.1f}",
            ]
        lines += ["# TYPE tallystick_ledger_up gauge", f"tallystick_ledger_up {up}", ""]
        return PlainTextResponse("\n".join(lines), media_type="text/plain; version=0.0.4")

    return routes


def _alerts(depth: Depth, age: float, thresholds: Thresholds) -> list[str]:
    why: list[str] = []
    if age > thresholds.age:
        why.append(f"the oldest event has waited {age:.0f} s, over {thresholds.age:g} s")
    if depth.waiting > thresholds.depth:
        why.append(f"{depth.waiting:,} events wait, over {thresholds.depth:,}")
    if depth.parked:
        why.append(f"{depth.parked:,} events are parked; `tallystick stuck` says why")
    return why


def _family(name: str, kind: str, label: str, values: Mapping[str, int]) -> list[str]:
    """Return a metric with one label, in Prometheus's text format."""
    full = f"tallystick_{name}"
    samples = [f'{full}{{{label}="{value}"}} {count}' for value, count in values.items()]
    return [f"# TYPE {full} {kind}", *samples]
