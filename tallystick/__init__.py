"""Tallystick: bill your customers for Claude, to the token, whatever crashes.

An application needs this package alone::

    client = await tallystick.Client.connect()
    reply = await client.messages.create(customer_id="acme", request_id="r-1", model=..., ...)

The names below are loaded on first use. Workflow code imports `tallystick.contracts` inside
Temporal's sandbox, and that import runs this file: pulling the SDKs in here would stop every
worker from starting.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tallystick.client import BilledMessage, Client
    from tallystick.contracts import Bill, BillLine, ClaudeReply, ClaudeRequest, RequestQuote
    from tallystick.errors import TallystickError
    from tallystick.temporal import connect_temporal

__all__ = [
    "Bill",
    "BillLine",
    "BilledMessage",
    "ClaudeReply",
    "ClaudeRequest",
    "Client",
    "RequestQuote",
    "TallystickError",
    "connect_temporal",
]

_HOMES = {
    "Bill": "contracts",
    "BillLine": "contracts",
    "BilledMessage": "client",
    "ClaudeReply": "contracts",
    "ClaudeRequest": "contracts",
    "Client": "client",
    "RequestQuote": "contracts",
    "TallystickError": "errors",
    "connect_temporal": "temporal",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module the first time it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tallystick' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"tallystick.{_HOMES[name]}"), name)
