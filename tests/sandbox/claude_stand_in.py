"""A served Claude stand-in with the official SDK and the control API at hand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import httpx

from tallystick.sandbox.claude import create_claude_app
from tallystick.sandbox.server import serve

MODEL = "claude-sonnet-5-5"


def ask(text: str = "What is a tally stick?", **more: Any) -> dict[str, Any]:
    return {
        "model": MODEL,
        "max_tokens": 1_000,
        "messages": [{"role": "user", "content": text}],
        **more,
    }


class StandIn:
    def __init__(self, url: str, client: anthropic.AsyncAnthropic, control: httpx.AsyncClient):
        self.url, self.client, self.control = url, client, control

    async def create(self, text: str = "What is a tally stick?", **more: Any):
        return await self.client.messages.create(**ask(text, **more))

    async def order(self, fault: str, *, match: str = "", times: int | None = 1, **options: Any):
        rule = {"fault": fault, "match": match, "times": times, "options": options}
        answer = await self.control.post("/_sandbox/faults", json={"rules": [rule]})
        assert answer.status_code == 200, answer.text

    async def post(self, path: str, **body: Any) -> Any:
        answer = await self.control.post(f"/_sandbox/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def get(self, path: str) -> Any:
        answer = await self.control.get(f"/_sandbox/{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def rows(self) -> list[dict[str, Any]]:
        return (await self.get("journal"))["rows"]

    async def settled(self, count: int) -> list[dict[str, Any]]:
        """Wait until so many requests were served and the fate of each answer is known."""
        async with asyncio.timeout(30):
            while True:
                rows = await self.rows()
                if len(rows) == count and all(row["delivered"] != "unknown" for row in rows):
                    return rows

    async def hold(self, **order: Any) -> str:
        answer = await self.control.post("/_sandbox/holds", json=order)
        assert answer.status_code == 200, answer.text
        return answer.json()["id"]

    async def caught(self, hold: str) -> None:
        """Wait until one request is in the hold."""
        async with asyncio.timeout(30):
            while True:
                held = {each["id"]: each["waiting"] for each in (await self.get("holds"))["holds"]}
                if held[hold] == 1:
                    return


@asynccontextmanager
async def stand_in(
    *, timeout: float = 30, key: str = "sk-ant-test", **how: Any
) -> AsyncIterator[StandIn]:
    async with (
        serve(create_claude_app(**how)) as url,
        anthropic.AsyncAnthropic(
            api_key=key, base_url=url, max_retries=0, timeout=timeout
        ) as client,
        httpx.AsyncClient(base_url=url, timeout=60) as control,
    ):
        yield StandIn(url, client, control)
