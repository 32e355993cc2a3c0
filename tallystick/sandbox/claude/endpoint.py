"""What every route of the API has in common: a request id, a key, and errors as JSON."""

from starlette.types import Receive, Scope, Send

from tallystick.sandbox.claude.errors import ApiError, ConnectionCut, authenticate
from tallystick.sandbox.claude.http import ClientGoneError, headers_of, send_error
from tallystick.sandbox.claude.replies import new_id
from tallystick.sandbox.claude.service import ClaudeService
from tallystick.sandbox.server import connection_of


class Endpoint:
    """One route of the API as an ASGI app; what `handle` raises becomes the wire's answer."""

    def __init__(self, service: ClaudeService):
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        request_id = new_id("req")
        try:
            key = authenticate(headers_of(scope))
            await self.handle(scope, receive, send, request_id, key)
        except ApiError as error:
            self._service.journal.refuse(f"{error.status} {error.code or error.type}")
            await send_error(send, error, request_id)
        except ConnectionCut:
            connection_of(scope).reset()
        except ClientGoneError:
            return

    async def handle(
        self, scope: Scope, receive: Receive, send: Send, request_id: str, key: str
    ) -> None:
        """Answer one authenticated request."""
        raise NotImplementedError
