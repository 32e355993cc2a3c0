"""Serves the app over HTTP from the running event loop, and lets requests in flight finish."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager

import uvicorn
from starlette.types import ASGIApp

from tallystick.settings import SettingsError

DRAIN = 10
"""Seconds that requests in flight get to finish."""
BACKLOG = 2_048
"""Connections that may wait to be taken; Stripe delivers a month's end all at once."""


@asynccontextmanager
async def serve(
    app: ASGIApp, *, host: str, port: int, asked_by: str = "--host, --port"
) -> AsyncGenerator[str, None]:
    """Serve `app` while the context is open; yields the base URL. Port 0 takes any free port.

    Where it cannot, `asked_by` names the options or settings to change.

    Raises:
        SettingsError: when the address cannot be listened on.
    """
    with _listening(host, port, asked_by) as listener:
        server = _Server(
            uvicorn.Config(
                app,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=DRAIN,
            )
        )
        name, bound = listener.getsockname()[:2]
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://[{name}]:{bound}" if ":" in name else f"http://{name}:{bound}"
        finally:
            server.should_exit = True
            await serving


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield  # they are the process's; uvicorn would raise them again once it has stopped


@contextlib.contextmanager
def _listening(host: str, port: int, asked_by: str) -> Generator[socket.socket, None, None]:
    with contextlib.ExitStack() as stack:
        try:
            (family, kind, _, _, address), *_ = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            # Named as TCP, or asyncio leaves Nagle on: 40 ms a call (facts on Stripe,
            # 'Corrections').
            listener = stack.enter_context(socket.socket(family, kind, socket.IPPROTO_TCP))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError as error:
            raise SettingsError(
                f"{asked_by}: cannot listen on {host}:{port}: {error.strerror}"
            ) from error
        yield listener
