"""An answer on its way out: its parts in order, at the pace that is set, until something cuts it.

Parts are gathered and leave together unless time is to pass between them or enough has come
together: an answer of any length takes the memory of one such piece, since the next is not made
before the client has taken the last ones. When a fault cuts the answer, what came before the cut
is sent first: a client that saw half a stream is the point.
"""

import asyncio
from collections.abc import Iterator

from starlette.types import Send

from tallystick.sandbox.claude.errors import ConnectionCut
from tallystick.sandbox.claude.http import Headers
from tallystick.sandbox.claude.latency import Latency
from tallystick.sandbox.claude.streaming import Part

_PIECE = 64 * 1024


class Delivery:
    """One answer with status 200."""

    def __init__(self, send: Send, headers: Headers):
        self._send = send
        self._headers = headers
        self._started = False
        self._pending = bytearray()

    async def deliver(self, parts: Iterator[Part], latency: Latency) -> bool:
        """Send the parts; returns whether the last of them was among those sent.

        Raises:
            ConnectionCut: where the parts end in one.
        """
        complete = False
        try:
            for part in parts:
                if part.pause or (latency.per_token and part.tokens):
                    await self._flush(more=True)
                    await asyncio.sleep(part.pause)
                    await latency.for_tokens(part.tokens)
                self._pending += part.data
                complete = part.last
                if len(self._pending) >= _PIECE:
                    await self._flush(more=True)
                    await asyncio.sleep(0)  # a fast client leaves others no turn otherwise
        except ConnectionCut:
            if self._pending:
                await self._flush(more=True)
            raise
        await self._flush(more=False)
        return complete

    async def _flush(self, *, more: bool) -> None:
        if not self._started:
            self._started = True
            await self._send(
                {"type": "http.response.start", "status": 200, "headers": self._headers}
            )
        data = bytes(self._pending)
        self._pending.clear()
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
