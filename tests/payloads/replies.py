"""The stand-in for Claude with replies of a test's choice: any length, any text."""

import json

from starlette.types import Message, Receive, Scope, Send

from tallystick.sandbox.claude import create_claude_app


class Saying:
    """Serves the stand-in; while `text` is set, whole replies say that and nothing else."""

    def __init__(self, text: str | None = None) -> None:
        self.text = text
        self._app = create_claude_app()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.text is None or scope["path"] != "/v1/messages":
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
            if not message.get("more_body", False):
                changed = _saying(self.text or "", body) if begun["status"] == 200 else body
                await send({**begun, "headers": _with_length(begun["headers"], len(changed))})
                await send({"type": "http.response.body", "body": changed})

        await self._app(scope, receive, hold)


def _saying(text: str, body: bytes) -> bytes:
    return json.dumps({**json.loads(body), "content": [{"type": "text", "text": text}]}).encode()


def _with_length(headers: list[tuple[bytes, bytes]], length: int) -> list[tuple[bytes, bytes]]:
    kept = [each for each in headers if each[0] != b"content-length"]
    return [*kept, (b"content-length", str(length).encode())]
