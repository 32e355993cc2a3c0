"""What every route of the API has in common: a request id, a key, and errors as JSON."""

from starlette.types import Receive, Scope, Send

from tallystick.sandbox.claude.errors import ApiError, ConnectionCut, authenticate
from tallystick.sandbox.claude.faults import ClaudeFault, Place
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
        except ConnectionCut as cut:
            connection = connection_of(scope)
            connection.reset() if cut.reset else connection.close()
        except ClientGoneError:
            return

    async def handle(
        self, scope: Scope, receive: Receive, send: Send, request_id: str, key: str
    ) -> None:
        """Answer one authenticated request."""
        raise NotImplementedError

    def pick_fault(self, request: bytes, place: Place) -> ClaudeFault | None:
        """Return the fault that a request meets there, if any."""
        return self._service.faults.pick(request, lambda each: place in each.strikes)

    async def strike(self, fault: ClaudeFault | None) -> None:
        """Let a fault act before the work is done; what it cuts there was not served."""
        try:
            if fault is not None:
                await fault.before()
        except ConnectionCut:
            self._service.journal.refuse("connection reset")
            raise
