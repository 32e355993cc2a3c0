"""Rating replies from outside, one JSON object a line, by the code that rates our own.

Behind `tallystick rate`, for anyone who wants to check a bill: what cannot be rated comes back as a
line with its reason, so one bad line never hides the next.
"""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

from tallystick.money import plain
from tallystick.pricing.book import PriceBook
from tallystick.pricing.rating import rate

_RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?(?P<offset>[Zz]|[+-]\d\d:\d\d)?", re.ASCII
)


class _BadLineError(ValueError):
    """The line cannot be rated; the message names the field."""


def rate_text(text: str | bytes, *, book: PriceBook | None = None) -> dict[str, Any]:
    """Rate one line of JSON text; see `rate_line`."""
    try:
        line = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return _refused(None, f"the line is not JSON: {str(error)[:200]}")
    return rate_line(line, book=book)


def rate_line(line: object, *, book: PriceBook | None = None) -> dict[str, Any]:
    """Rate one line of the interface of `tallystick rate`.

    Args:
        line: `{"id", "at": RFC 3339 instant, "batch": bool, "message": {...}}`, as parsed JSON.
        book: another book than the one that ships.

    Returns:
        `{"id", "status", "cost_usd", "lines", "reason"}`, amounts as decimal strings. Never raises
        on JSON.
    """
    name: str | int | None = None
    try:
        fields = _object(line, "the line is not an object")
        name = _id(fields)
        at, batch = _instant(fields), _batch(fields)
        message = _object(fields.get("message"), "message is missing or not an object")
    except _BadLineError as error:
        return _refused(name, str(error))
    rating = rate(message, at=at, batch=batch, book=book)
    return {
        "id": name,
        "status": rating.status,
        "cost_usd": None if rating.cost_usd is None else plain(rating.cost_usd),
        "lines": [
            {
                "kind": bill_line.kind,
                "model": bill_line.model,
                "quantity": bill_line.quantity,
                "unit_usd": plain(bill_line.unit_usd),
                "amount_usd": plain(bill_line.amount_usd),
            }
            for bill_line in rating.lines
        ],
        "reason": rating.reason,
    }


def _id(fields: Mapping[str, Any]) -> str | int:
    value = fields.get("id")
    if type(value) not in (str, int):
        raise _BadLineError("id is missing or neither text nor a whole number")
    return cast("str | int", value)


def _instant(fields: Mapping[str, Any]) -> datetime:
    value = fields.get("at")
    if not isinstance(value, str):
        raise _BadLineError("at is missing or not text")
    matched = _RFC_3339.fullmatch(value)
    if matched is None:
        raise _BadLineError("at is not an RFC 3339 instant")
    if matched["offset"] is None:
        raise _BadLineError("at has no offset from UTC; end it with Z or +00:00")
    try:
        return datetime.fromisoformat(value.upper())
    except ValueError:
        raise _BadLineError("at is not an instant of the calendar") from None


def _batch(fields: Mapping[str, Any]) -> bool:
    value = fields.get("batch", False)
    if not isinstance(value, bool):
        raise _BadLineError("batch is neither true nor false")
    return value


def _object(value: object, trouble: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _BadLineError(trouble)
    return cast("Mapping[str, Any]", value)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")


def _refused(name: str | int | None, reason: str) -> dict[str, Any]:
    return {"id": name, "status": "unpriced", "cost_usd": None, "lines": [], "reason": reason}
