"""POST /v1/messages and /v1/messages/count_tokens.

The order of steps is what crash tests rely on: received, held, refused or not; served, and only
then journalled; held again; answered. From the moment of serving the row exists, whatever becomes
of the answer. A client that left does not stop the work, as it does not stop Claude.
"""

from collections.abc import Iterator

from starlette.types import Receive, Scope, Send
from typing_extensions import override

from tallystick.sandbox.claude.bodies import check_counted, check_messages, parse_json
from tallystick.sandbox.claude.delivery import Delivery
from tallystick.sandbox.claude.endpoint import Endpoint
from tallystick.sandbox.claude.http import (
    Headers,
    answer_headers,
    json_bytes,
    read_body,
    send_json,
)
from tallystick.sandbox.claude.models import resolve
from tallystick.sandbox.claude.prompt import segments_of
from tallystick.sandbox.claude.replies import Reply
from tallystick.sandbox.claude.streaming import Part, stream_parts
from tallystick.sandbox.server import connection_of


class Messages(Endpoint):
    """Replies, whole or streamed."""

    @override
    async def handle(
        self, scope: Scope, receive: Receive, send: Send, request_id: str, key: str
    ) -> None:
        service = self._service
        raw = await read_body(receive)
        await service.holds.pause("received", raw)
        fields = parse_json(raw)
        streamed = fields.get("stream") is True
        fault = self.pick_fault(raw, "stream" if streamed else "message")
        await self.strike(fault)
        reply = service.reply(check_messages(fields), key, fault)
        if streamed:
            await service.latency.before_stream()
        else:
            await service.latency.for_reply(reply.tokens.output)
        row = service.journal.serve(
            reply,
            request_id=request_id,
            key=key,
            raw=raw,
            streamed=streamed,
            fault=None if fault is None else fault.name,
        )
        delivered = False
        try:
            await service.holds.pause("served", raw)
            headers, parts = _answer(reply, request_id, streamed=streamed)
            if fault is not None:
                parts = fault.disturb(parts)
            whole = await Delivery(send, headers).deliver(parts, service.latency)
            delivered = whole and connection_of(scope).is_open
        finally:
            row.delivered = "yes" if delivered else "no"


class CountTokens(Endpoint):
    """The size of a prompt; nothing is served and nothing journalled."""

    @override
    async def handle(
        self, scope: Scope, receive: Receive, send: Send, request_id: str, key: str
    ) -> None:
        body = check_counted(parse_json(await read_body(receive)))
        resolve(body.model)
        count = sum(segment.tokens for segment in segments_of(body))
        headers = answer_headers(request_id, "application/json")
        await send_json(send, 200, {"input_tokens": count}, headers)


def _answer(reply: Reply, request_id: str, *, streamed: bool) -> tuple[Headers, Iterator[Part]]:
    if streamed:
        headers = answer_headers(request_id, "text/event-stream; charset=utf-8")
        return [*headers, (b"cache-control", b"no-cache")], stream_parts(reply)
    data = json_bytes(reply.message())
    headers = answer_headers(request_id, "application/json")
    headers.append((b"content-length", str(len(data)).encode()))
    return headers, iter([Part(data, last=True)])
