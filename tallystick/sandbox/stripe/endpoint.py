"""How a resource declares its endpoints, and what a handler is told about a call.

A resource is one file with a list `ENDPOINTS`; `app.py` strings the lists together.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.faults import StripeFault
from tallystick.sandbox.stripe.wire import Obj, Params, Refusal


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated call: `ids` are the path's parameters, `path` is as it was called."""

    account: Account
    path: str
    ids: dict[str, str]
    livemode: bool
    idempotency_key: str | None
    fault: StripeFault | None


Handler = Callable[[Call, Any], Awaitable[Obj]]
Authenticate = Callable[[Account, str], bool]
"""Takes the bearer token, says whether it is a live-mode one, or refuses."""


_KEY = re.compile(r"(sk|rk)_(?P<mode>live|test)_")


def with_key(account: Account, token: str) -> bool:
    """Accept a secret or restricted key.

    Raises:
        Refusal: 401.
    """
    del account  # any key will do
    key = _KEY.match(token)
    if key is None:
        raise Refusal(401, f"Invalid API Key provided: {token[:8]}***")
    return key["mode"] == "live"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method and path, the model of its parameters, and who answers."""

    method: str
    path: str
    params: type[BaseModel]
    handle: Handler
    authenticate: Authenticate = with_key

    @property
    def v2(self) -> bool:
        """Whether it speaks JSON and v2's errors."""
        return self.path.startswith("/v2/")


def retrieve(kind: str, path: str) -> Endpoint:
    """Return the endpoint that shows one object, `path` ending in `{id}`."""

    async def handle(call: Call, _: Params) -> Obj:
        return call.account.get(kind, call.ids["id"])

    return Endpoint("GET", path, Params, handle)
