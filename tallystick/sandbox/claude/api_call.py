"""The steps of a call that is not a message, which holds and faults rely on.

Received, held, refused or not; done; held again; answered. What a call does is done before
anything may keep its answer from leaving.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from starlette.types import Receive, Scope, Send
from typing_extensions import override

from tallystick.sandbox.claude.delivery import Delivery
from tallystick.sandbox.claude.endpoint import Endpoint
from tallystick.sandbox.claude.faults import Place
from tallystick.sandbox.claude.http import (
    MAX_BODY,
    Headers,
    answer_headers,
    headers_of,
    json_bytes,
    read_body,
)
from tallystick.sandbox.claude.latency import Latency
from tallystick.sandbox.claude.streaming import Part
from tallystick.sandbox.server import connection_of

_AT_ONCE = Latency()


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it came."""

    scope: Scope
    raw: bytes
    key: str
    request_id: str

    @property
    def path(self) -> Mapping[str, str]:
        """What the path names, such as `batch_id`."""
        return self.scope["path_params"]

    @property
    def query(self) -> str:
        """The query string as it came."""
        return self.scope["query_string"].decode("latin-1")

    @property
    def base_url(self) -> str:
        """The address under which the client reached the stand-in."""
        return f"{self.scope['scheme']}://{headers_of(self.scope)['host']}"


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered with status 200; `delivered` is called when all of it has left."""

    headers: Headers
    parts: Iterator[Part]
    delivered: Callable[[], None] = _nothing


class ApiCall(Endpoint):
    """A route that is known by its request line, since most such calls have no body."""

    place: ClassVar[Place] = "call"
    max_body: ClassVar[int] = MAX_BODY

    @override
    async def handle(
        self, scope: Scope, receive: Receive, send: Send, request_id: str, key: str
    ) -> None:
        call = Call(scope, await read_body(receive, self.max_body), key, request_id)
        seen = f"{scope['method']} {scope['path']}?{call.query}\n".encode() + call.raw
        await self._service.holds.pause("received", seen)
        fault = self.pick_fault(seen, self.place)
        await self.strike(fault)
        answer = await self.work(call)
        await self._service.holds.pause("served", seen)
        parts = answer.parts if fault is None else fault.disturb(answer.parts)
        whole = await Delivery(send, answer.headers).deliver(parts, _AT_ONCE)
        if whole and connection_of(scope).is_open:
            answer.delivered()

    async def work(self, call: Call) -> Answer:
        """Do what is asked.

        Raises:
            ApiError: it is refused.
        """
        raise NotImplementedError


def as_json(call: Call, body: Any) -> Answer:
    """Answer with JSON."""
    data = json_bytes(body)
    headers = answer_headers(call.request_id, "application/json")
    headers.append((b"content-length", str(len(data)).encode()))
    return Answer(headers, iter([Part(data, last=True)]))
