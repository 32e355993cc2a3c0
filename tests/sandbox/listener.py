"""A listener on loopback that keeps every webhook it gets, and answers as it is told."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tallystick.sandbox.server import serve


@dataclass(frozen=True)
class Heard:
    """One webhook: its raw body and its signature."""

    body: str
    signature: str


@dataclass
class Listener:
    """What was heard; `failing` answers so many 500s first, `status` is the answer after them."""

    url: str = ""
    status: int = 200
    failing: int = 0
    heard: list[Heard] = field(default_factory=list)

    async def until(self, done: Callable[["Listener"], bool]) -> None:
        """Return when the condition holds."""
        while not done(self):
            await asyncio.sleep(0.005)


@asynccontextmanager
async def listener() -> AsyncGenerator[Listener, None]:
    """Listen while the context is open."""
    made = Listener()

    async def hear(request: Request) -> Response:
        body = (await request.body()).decode()
        made.heard.append(Heard(body, request.headers.get("stripe-signature", "")))
        if made.failing:
            made.failing -= 1
            return Response(status_code=500)
        return Response(status_code=made.status)

    async with serve(Starlette(routes=[Route("/hook", hear, methods=["POST"])])) as url:
        made.url = f"{url}/hook"
        yield made
