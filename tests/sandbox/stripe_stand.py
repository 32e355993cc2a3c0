"""A Stripe on loopback for tests: served over HTTP, judged by the contract, on its own clock."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import stripe

from tallystick.sandbox.server import serve
from tallystick.sandbox.stripe import create_stripe_app
from tests.contract.stripe_contract import ContractRecorder

LIVE, TEST = "sk_live_stand", "sk_test_stand"
START = 1_794_312_030  # 2026-11-10 12:00:30 UTC


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now: float = START):
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, *, days: float = 0, hours: float = 0, seconds: float = 0) -> None:
        self.now += days * 86400 + hours * 3600 + seconds


class StripeStand:
    """One sandbox: its address, clients for it, its control API and its account."""

    def __init__(self, url: str, app: Any, contract: ContractRecorder, clock: Clock):
        self.url, self.contract, self.clock = url, contract, clock
        self.account = app.state.account
        self._control = httpx.AsyncClient(base_url=url, timeout=60)
        self._clients: dict[str, stripe.StripeClient] = {}

    def client(self, key: str = LIVE) -> stripe.StripeClient:
        if key not in self._clients:
            self._clients[key] = stripe.StripeClient(
                key,
                base_addresses={"api": self.url, "meter_events": self.url},
                max_network_retries=0,
                http_client=stripe.HTTPXClient(timeout=10),
            )
        return self._clients[key]

    async def control(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        answer = await self._control.request(method, f"/_sandbox/{path}", json=body or None)
        answer.raise_for_status()
        return answer.json()

    async def fault(
        self, fault: str, *, match: str = "", times: int | None = 1, **options: Any
    ) -> None:
        rule = {"fault": fault, "match": match, "times": times, "options": options}
        await self.control("POST", "faults", rules=[rule])

    async def hold(self, match: str, at: str = "served") -> str:
        return (await self.control("POST", "holds", match=match, at=at))["id"]

    async def until_held(self, count: int = 1) -> None:
        """Return when so many requests wait in holds."""
        while True:
            holds = (await self.control("GET", "holds"))["holds"]
            if sum(hold["waiting"] for hold in holds) >= count:
                return
            await asyncio.sleep(0.001)

    async def totals(self) -> dict[str, Any]:
        return await self.control("GET", "totals")

    async def close(self) -> None:
        for client in self._clients.values():
            await client._requestor._client.close_async()
        await self._control.aclose()


@asynccontextmanager
async def stripe_stand(**options: Any) -> AsyncGenerator[StripeStand, None]:
    """Serve a fresh sandbox; at the end every request and answer must have been valid."""
    clock = Clock()
    app = create_stripe_app(clock=clock, **options)
    contract = ContractRecorder(app)
    async with serve(contract) as url:
        stand = StripeStand(url, app, contract, clock)
        try:
            yield stand
        finally:
            await stand.close()
    if contract.requests:
        contract.assert_all_valid()
