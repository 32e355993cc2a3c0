"""Seals content that the ledger holds for a while: a reply until it is billed, a job's prompts.

Sealed text stands where the plain text would, marked, so that a column may hold both: rows written
before keys were set are read as they are. What the ledger keeps for good holds no content: counts,
prices, ids, and the labels that a caller gave (`metadata`), which are there to be searched.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any

from tallystick.errors import PayloadUnreadableError
from tallystick.payloads.keys import Keyring

_ABOUT = b"tallystick column"
_MARK = "sealed:"
"""No JSON begins so, and JSON is all that these columns hold otherwise."""
_AS_TEXT = "as_text"


class ColumnSeal:
    """Seals under the first of `keys`, if there is one, and reads what is under any, or plain."""

    def __init__(self, keys: Keyring | None = None):
        self._keys = keys or Keyring()

    def text(self, plain: str) -> str:
        """Return JSON text as it is to be stored."""
        if not self._keys:
            return plain
        name, sealed = self._keys.seal(plain.encode(), _ABOUT)
        return f"{_MARK}{name}:{base64.b64encode(sealed).decode()}"

    def read_text(self, stored: str) -> str:
        """Return what was given to `text`.

        Raises:
            PayloadUnreadableError: it is under a key that is not here.
        """
        if not stored.startswith(_MARK):
            return stored
        name, _, encoded = stored.removeprefix(_MARK).partition(":")
        try:
            sealed = base64.b64decode(encoded, validate=True)
        except ValueError:
            raise PayloadUnreadableError("a sealed column of the ledger was changed") from None
        return self._keys.open(name, sealed, _ABOUT).decode()

    def document(self, plain: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a JSON object as it is to be stored: one that holds it as text, sealed or not.

        PostgreSQL's JSON refuses a NUL inside a string, which Claude may well have written. Refused
        by the ledger, a reply that was paid for would be lost and paid for again.
        """
        return {_AS_TEXT: self.text(json.dumps(plain, separators=(",", ":")))}

    def read_document(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Return what was given to `document`; raises as `read_text` does."""
        if set(stored) != {_AS_TEXT}:
            return dict(stored)
        return json.loads(self.read_text(stored[_AS_TEXT]))
