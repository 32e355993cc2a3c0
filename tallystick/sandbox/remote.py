"""A stand-in's control API from elsewhere: how tests, drills and the demo break one and look at it.

Nothing of a drill may run inside what it disturbs, so all of it goes over the port that the
stand-in serves (`tallystick.sandbox.control`, and each stand-in's own routes).
"""

import asyncio
from typing import Any

import httpx

PATIENCE = 60
"""Seconds until a request has to be in a hold; far more than it takes."""
_PAGE = 10_000


class Control:
    """The control API of one stand-in, at `url` or where `http` has its base.

    Raises httpx.HTTPError, of every method, when the stand-in refuses or does not answer.
    """

    def __init__(self, http: httpx.AsyncClient, url: str = ""):
        self._http, self._url = http, url

    async def order(
        self, fault: str, *, match: str = "", times: int | None = 1, **options: Any
    ) -> None:
        """Have a fault strike the next `times` requests that contain `match`."""
        rule = {"fault": fault, "match": match, "times": times, "options": options}
        await self.post("faults", {"rules": [rule]})

    async def disarm(self) -> None:
        """End all faults, and forget which have struck."""
        await self._delete("faults")

    async def hold(self, *, match: str, at: str = "received", times: int | None = 1) -> str:
        """Have requests that contain `match` wait; returns the hold's id."""
        return (await self.post("holds", {"match": match, "at": at, "times": times}))["id"]

    async def caught(self, hold: str) -> None:
        """Wait until a request is in the hold."""
        async with asyncio.timeout(PATIENCE):
            while True:
                holds = (await self.get("holds"))["holds"]
                if any(each["id"] == hold and each["waiting"] for each in holds):
                    return
                await asyncio.sleep(0.02)

    async def release(self, hold: str) -> None:
        """Let those in the hold go on."""
        await self._delete(f"holds/{hold}")

    async def journal(self) -> list[dict[str, Any]]:
        """Return all that Claude has served, or all that Stripe has accepted, in order."""
        rows: list[dict[str, Any]] = []
        while True:
            body = await self.get(f"journal?after={len(rows)}&limit={_PAGE}")
            page = body["rows"] if "rows" in body else body["entries"]
            if not page:
                return rows
            rows += page

    async def get(self, path: str) -> Any:
        """Return what the stand-in shows at `path`."""
        return (await self._http.get(self._at(path))).raise_for_status().json()

    async def post(self, path: str, body: Any) -> Any:
        """Tell the stand-in something at `path`; returns its answer."""
        return (await self._http.post(self._at(path), json=body)).raise_for_status().json()

    async def _delete(self, path: str) -> None:
        (await self._http.delete(self._at(path))).raise_for_status()

    def _at(self, path: str) -> str:
        return f"{self._url}/_sandbox/{path}"
