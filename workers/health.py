"""`GET /health` and `GET /ready` of a worker process: whether it lives, and whether it takes work.

`/health` is answered by the loop that runs everything else, so a loop that hangs is not healthy; it
asks nobody outside, since a worker whose database is away must not be restarted for it. `/ready`
asks PostgreSQL and Temporal, over connections of its own: a full pool is load and no illness. It
says no until polling has begun and as soon as the process was told to stop, while what is in flight
still finishes.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from enum import StrEnum

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from temporalio.api.workflowservice.v1 import GetSystemInfoRequest
from temporalio.client import Client
from temporalio.service import RPCError

from tallystick.ledger import vitals
from tallystick.ledger.database import Ledger, LedgerUnavailableError

PATIENCE = 3.0
"""Seconds for each of the two to answer; Docker's and Kubernetes' probes wait a little longer."""


class Stage(StrEnum):
    """Where a worker process is in its life."""

    STARTING = "starting"
    WORKING = "working"
    DRAINING = "draining"


class Health:
    """What a worker says of itself: its stage, and whether those it needs answer."""

    def __init__(self) -> None:
        self._stage = Stage.STARTING
        self._needs: tuple[Client, Ledger] | None = None

    def works(self, client: Client, ledger: Ledger) -> None:
        """Note that polling has begun, on this Temporal and for this ledger."""
        self._stage, self._needs = Stage.WORKING, (client, ledger)

    def drains(self) -> None:
        """Note that nothing new is taken."""
        self._stage = Stage.DRAINING

    async def readiness(self) -> tuple[bool, Mapping[str, str | bool]]:
        """Tell whether work sent here is done, and by whose fault it is not."""
        told: dict[str, str | bool] = {"stage": self._stage.value}
        if self._needs is not None:
            client, ledger = self._needs
            postgresql, temporal = await asyncio.gather(
                _answered(_postgresql(ledger)), _answered(_temporal(client))
            )
            told |= {"postgresql": postgresql, "temporal": temporal}
        ready = self._stage is Stage.WORKING and all(told.values())
        return ready, {"ready": ready, **told}


def health_app(health: Health) -> FastAPI:
    """Return the two routes: 200 for yes, 503 for no."""
    app = FastAPI(title="Tallystick worker", openapi_url=None, docs_url=None, redoc_url=None)

    @app.get("/health")
    async def alive() -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        return JSONResponse({"alive": True})

    @app.get("/ready")
    async def ready() -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        is_ready, told = await health.readiness()
        return JSONResponse(told, 200 if is_ready else 503)

    return app


async def _postgresql(ledger: Ledger) -> None:
    async with ledger.each() as tx:
        await vitals.answers(tx)


async def _temporal(client: Client) -> None:
    # What every client asks when it connects, so nobody's access rules forbid it.
    await client.workflow_service.get_system_info(GetSystemInfoRequest())


async def _answered(asked: Awaitable[None]) -> bool:
    try:
        await asyncio.wait_for(asked, PATIENCE)
    except (LedgerUnavailableError, RPCError, TimeoutError):
        return False
    return True
