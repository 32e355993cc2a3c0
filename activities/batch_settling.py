"""Lines of a results file, rated: from the provider's bytes to rows for the ledger.

Each line is judged by itself, under the one instant and the one set of terms of its batch, and
becomes the columns that a reply of its own would have left (`reply_columns`). Nothing here waits
for anything, so it runs in a thread while the chunk before it is being written.
"""

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, cast

from pydantic_core import from_json

from activities.plain_replies import PlainReplies
from activities.reply_columns import bill_reply
from tallystick.ledger.batch_settling import COLUMNS, Billing, Chunk
from tallystick.money import plain
from tallystick.payloads.columns import ColumnSeal
from tallystick.plans.batching import passes
from tallystick.pricing import rate

_Object = Mapping[str, Any]
_NULL = "\\N"
_OF_REPLY = list(COLUMNS)[list(COLUMNS).index("message_id") :]
_NO_REPLY = "\t".join([_NULL] * len(_OF_REPLY))
_JSON = frozenset(name for name, type_ in COLUMNS.items() if type_ == "jsonb")


class NotOursError(ValueError):
    """A line names a request that was not sent in this batch."""


class UnreadableLineError(ValueError):
    """A line is no result of a batch; the message says what is wrong with it."""


class ChunkRater:
    """Rates the lines of one batch.

    Args:
        mark: what the `custom_id`s of its shard begin with (`plans.batching.shard_mark`).
        billing: by what it is billed.
        seal: what the lines are stored under; None stores them as they are.
    """

    def __init__(self, mark: str, billing: Billing, seal: ColumnSeal | None = None):
        self._seal = seal or ColumnSeal()
        self._mark = mark
        self._billing = billing
        self._plain = PlainReplies(billing.agreed, billing.ended_at)

    def rate(self, lines: Sequence[bytes], from_byte: int) -> Chunk:
        """Rate whole lines, as they are in the file from `from_byte` on.

        Raises:
            NotOursError: for a line with a `custom_id` of somebody else's.
            UnreadableLineError: for one that is no result.
        """
        # In the items' order, in which the ledger has them side by side; the file has none.
        rows = sorted([self._row(line) for line in lines])
        return Chunk(
            rows="".join([row for _, row in rows]).encode(),
            lines=len(lines),
            from_byte=from_byte,
            to_byte=from_byte + sum(map(len, lines)),
        )

    def _row(self, line: bytes) -> tuple[int, str]:
        """Return the item's number and its row."""
        read = _read(line)
        number = self._number(read)
        return number, f"{number}\t{self._fields(read, line)}\n"

    def _fields(self, read: _Object, line: bytes) -> str:
        """Return all fields but the number."""
        result = _object(read, "result")
        outcome = result.get("type")
        text = _text(self._seal.text(line.decode().rstrip("\n")))
        if outcome == "succeeded":
            reply = self._reply(_object(result, "message"))
            return f"succeeded\tf\t{_NULL}\t{_NULL}\t{text}\t{reply}"
        if outcome == "errored":
            error = _error(result)
            return (
                f"errored\t{'t' if passes(error[0]) else 'f'}\t{_text(error[0])}\t"
                f"{_text(error[1])}\t{text}\t{_NO_REPLY}"
            )
        if outcome in ("expired", "canceled"):
            again = "t" if outcome == "expired" else "f"
            return f"{outcome}\t{again}\t{outcome}\t{_NULL}\t{text}\t{_NO_REPLY}"
        raise UnreadableLineError(f"a result of the unknown type {outcome!r}")

    def _number(self, read: _Object) -> int:
        custom_id = read.get("custom_id")
        if not isinstance(custom_id, str) or not custom_id.startswith(self._mark):
            raise NotOursError(f"{custom_id!r} was not sent in this batch")
        try:
            return int(custom_id[len(self._mark) :])
        except ValueError:
            raise NotOursError(f"{custom_id!r} was not sent in this batch") from None

    def _reply(self, message: _Object) -> str:
        plain = self._plain.fields(message)
        return self._any_reply(message) if plain is None else plain

    def _any_reply(self, message: _Object) -> str:
        rating = rate(message, at=self._billing.ended_at, batch=True)
        columns = bill_reply(message, rating, self._billing.agreed, asked_model="").columns
        columns["message_id"] = message.get("id")
        return "\t".join([_value(name, columns[name]) for name in _OF_REPLY])


def _read(line: bytes) -> _Object:
    try:
        read: object = from_json(line)
    except ValueError:
        try:
            read = json.loads(line)  # slower, and takes more of what JSON can be
        except ValueError as error:
            raise UnreadableLineError(f"a line that is not JSON: {error}") from None
    if not isinstance(read, dict):
        raise UnreadableLineError("a line that is no JSON object")
    return cast("_Object", read)


def _object(holder: _Object, name: str) -> _Object:
    value = holder.get(name)
    if not isinstance(value, dict):
        raise UnreadableLineError(f"a line without its {name}")
    return cast("_Object", value)


def _error(result: _Object) -> tuple[str | None, str | None]:
    """Return type and message of an errored result; the API wraps them in an error response."""
    error = _object(result, "error")
    if isinstance(error.get("error"), dict):
        error = _object(error, "error")
    type_, message = error.get("type"), error.get("message")
    return (
        type_ if isinstance(type_, str) else None,
        message if isinstance(message, str) else None,
    )


# --- COPY's text format ---------------------------------------------------------------------------
def _text(value: str | None) -> str:
    if value is None:
        return _NULL
    if "\\" in value:
        value = value.replace("\\", "\\\\")
    if "\n" in value or "\t" in value or "\r" in value:
        value = value.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    return value.replace("\0", "")


def _value(name: str, value: object) -> str:
    if value is None:
        return _NULL
    if value is True or value is False:
        return "t" if value else "f"
    if isinstance(value, Decimal):
        return plain(value)
    if name in _JSON:
        return _text(json.dumps(value, separators=(",", ":")))
    return _text(value) if isinstance(value, str) else str(value)
