"""The stand-in for Claude with replies of a test's choice: any length, any text."""

import json
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from tallystick.sandbox.claude import create_claude_app


class Saying:
    """Serves the stand-in; while `text` is set, whole replies say that, those of batches too."""

    def __init__(self, text: str | None = None) -> None:
        self.text = text
        self._app = create_claude_app()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        text, path = self.text, scope["path"]
        in_batch = path.endswith("/results")
        if text is None or not (in_batch or path == "/v1/messages"):
            await self._app(scope, receive, send)
            return
        begun: Message = {}
        body = b""

        async def hold(message: Message) -> None:
            nonlocal begun, body
            if message["type"] == "http.response.start":
                begun = message
                return
            body += message.get("body", b"")
            if message.get("more_body", False):
                return
            said = b"".join(
                _saying(text, line, in_batch=in_batch) if begun["status"] == 200 else line
                for line in body.splitlines(keepends=True)
            )
            kept = [each for each in begun["headers"] if each[0] != b"content-length"]
            length = (b"content-length", str(len(said)).encode())
            await send({**begun, "headers": [*kept, length]})
            await send({"type": "http.response.body", "body": said})

        await self._app(scope, receive, hold)


def _saying(text: str, line: bytes, *, in_batch: bool) -> bytes:
    read: dict[str, Any] = json.loads(line)
    message = read["result"].get("message", {}) if in_batch else read
    message["content"] = [{"type": "text", "text": text}]
    return json.dumps(read).encode() + (b"\n" if in_batch else b"")
