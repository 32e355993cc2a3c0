"""A reply without its text: everything that rating looks at, and nothing a person wrote.

The ledger keeps this with each usage record. Rating the evidence gives what rating the reply gave,
so a bill can be worked out again, years later, from a row that holds no content.
"""

from collections.abc import Mapping
from typing import Any, cast

_REPLY_FIELDS = ("id", "type", "role", "model", "stop_reason", "stop_sequence", "usage")
_BLOCK_FIELDS = ("type", "name", "caller", "model")


def evidence(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the priced parts of a Messages API reply; content blocks keep their kind alone."""
    kept = {name: message[name] for name in _REPLY_FIELDS if name in message}
    if "content" in message:
        content = message["content"]
        kept["content"] = (
            [_kind(block) for block in cast("list[Any]", content)]
            if isinstance(content, list)
            else None
        )
    return kept


def _kind(block: object) -> object:
    if not isinstance(block, Mapping):
        return None
    fields = cast("Mapping[str, Any]", block)
    return {name: fields[name] for name in _BLOCK_FIELDS if name in fields}
