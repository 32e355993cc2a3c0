"""The server under the stand-ins: what it does to connections."""

import asyncio
import signal
import socket

import httpx
import pytest

from tallystick.sandbox.server import connection_of, serve


async def test_answers_leave_at_once_because_nagle_is_off():
    seen = []

    async def app(scope, receive, send):
        transport = connection_of(scope)._protocol.transport
        sock = transport.get_extra_info("socket")
        seen.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async with serve(app) as url, httpx.AsyncClient(timeout=60) as client:
        assert (await client.get(url)).status_code == 204
    assert seen == [1]


async def test_a_port_that_is_taken_is_an_error_and_a_free_one_is_used():
    async def app(scope, receive, send):
        raise AssertionError("nobody calls")

    async with serve(app) as url:
        port = int(url.rsplit(":", 1)[1])
        with pytest.raises(OSError, match="in use"):
            async with serve(app, port=port):
                pass
    async with serve(app, port=port) as again:
        assert again == url


async def test_a_reset_leaves_nothing_in_the_log(caplog):
    async def app(scope, receive, send):
        connection = connection_of(scope)
        assert connection.is_open
        connection.reset()
        assert not connection.is_open

    async with serve(app) as url, httpx.AsyncClient(timeout=60) as client:
        with pytest.raises(httpx.ReadError):
            await client.get(url)
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []


async def test_the_server_leaves_signals_to_its_process():
    async def app(scope, receive, send):
        raise AssertionError("nobody calls")

    before = signal.getsignal(signal.SIGINT)
    async with serve(app):
        await asyncio.sleep(0)
        assert signal.getsignal(signal.SIGINT) is before
