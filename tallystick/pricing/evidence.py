"""A reply without its text: everything that rating looks at, and nothing a person wrote.

The ledger keeps this with each usage record. Rating the evidence gives what rating the reply gave,
so a bill can be worked out again, years later, from a row that holds no content (requirements 7
and 64).
"""

from collections.abc import Mapping
from typing import Any, cast

_REPLY_FIELDS = ("id", "type", "role", "model", "stop_reason", "usage")
_BLOCK_FIELDS = ("type", "name", "caller", "model")
_NO_LIST = ""


def evidence(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the priced parts of a Messages API reply; content blocks keep their kind alone."""
    kept = {name: message[name] for name in _REPLY_FIELDS if name in message}
    content = message.get("content")
    if isinstance(content, list):
        kept["content"] = [_kind(block) for block in cast("list[object]", content)]
    elif content is not None:
        kept["content"] = _NO_LIST
    return kept


def _kind(block: object) -> object:
    if not isinstance(block, dict):
        return None
    fields = cast("Mapping[str, Any]", block)
    return {name: fields[name] for name in _BLOCK_FIELDS if name in fields}
