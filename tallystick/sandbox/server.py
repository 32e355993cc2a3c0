"""Serve a stand-in over real HTTP from the running event loop, and let it break connections.

ASGI has no word for "reset the connection", yet a reset is the fault that matters most to billing:
the work was done and the answer is gone. So the protocol class here hands each request a
`Connection` in its scope. A reset is a real one (`SO_LINGER` 0, hence a TCP RST): the client sees a
transport error, never a tidy end.

The listening socket is made with `IPPROTO_TCP`, or asyncio leaves Nagle on and each call takes
about 40 ms (facts on Stripe, 'Corrections'). Idle connections are kept for long: a server that
closes them while a client reuses one would inject faults that nobody asked for.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncGenerator, Generator, MutableMapping
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

HOST = "127.0.0.1"

_EXTENSION = "tallystick.connection"
_NO_LINGER = struct.pack("ii", 1, 0)
_KEEP_ALIVE_SECONDS = 3_600
_BACKLOG = 2_048


class Connection:
    """The TCP connection that carries one request."""

    def __init__(self, protocol: H11Protocol):
        self._protocol = protocol

    @property
    def is_open(self) -> bool:
        """False once either side has closed: what is sent from then on reaches nobody."""
        return not self._protocol.transport.is_closing()

    def close(self) -> None:
        """Close the connection once what was sent has left, in the middle of an answer."""
        self._protocol.transport.close()
        self._forget()

    def reset(self) -> None:
        """Cut the connection with a TCP reset; the app then returns without sending anything."""
        transport = self._protocol.transport
        if not transport.is_closing():
            sock: socket.socket = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            transport.abort()
        self._forget()

    def _forget(self) -> None:
        # What uvicorn would learn a moment later; told now, it does not log an unfinished answer.
        self._protocol.cycle.disconnected = True


def connection_of(scope: MutableMapping[str, Any]) -> Connection:
    """Return the connection of a request that came through `serve`."""
    return scope["extensions"][_EXTENSION]


class _Protocol(H11Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        connection, app = Connection(self), self.app

        async def app_on_connection(scope: Scope, receive: Receive, send: Send) -> None:
            scope["extensions"] = {_EXTENSION: connection}
            try:
                await app(scope, receive, send)  # pyright: ignore[reportArgumentType]
            except asyncio.CancelledError:
                connection.reset()  # the server stops, as abruptly as a process that dies

        self.app = app_on_connection  # pyright: ignore[reportAttributeAccessIssue]


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield  # signals belong to the process that embeds the server


@contextlib.asynccontextmanager
async def serve(app: ASGIApp, *, port: int = 0) -> AsyncGenerator[str, None]:
    """Serve `app` on 127.0.0.1 while the context is open; yields the base URL.

    Port 0 takes any free port. On leaving, requests still in flight are reset.

    Raises:
        OSError: when the port is taken.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(_BACKLOG)  # from here on clients queue; no need to wait for uvicorn
        server = _Server(
            uvicorn.Config(
                app,
                http=_Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=1,  # for requests that slip in while it stops
            )
        )
        url = f"http://{HOST}:{listener.getsockname()[1]}"
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield url
        finally:
            for request in list(server.server_state.tasks):
                request.cancel()
            server.should_exit = True
            await serving
