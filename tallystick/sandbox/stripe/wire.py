"""Stripe's wire formats: bracketed forms in, JSON out, and the two shapes of an error.

v1 speaks forms and names the kind of an error in `type`; v2 speaks JSON, coerces nothing and names
only a `code`. Parameters are pydantic models that refuse what they do not know, as Stripe does, so
a misspelt parameter fails here and not first on a live account.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar, cast
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, ValidationError

Obj = dict[str, Any]
"""A Stripe object, as JSON."""


def public(value: Any) -> Any:
    """Return a copy as the API shows it: without the fields that begin with `_`, which are ours."""
    if isinstance(value, dict):
        shown = cast(Obj, value).items()
        return {key: public(each) for key, each in shown if not key.startswith("_")}
    if isinstance(value, list):
        return [public(each) for each in cast(list[Any], value)]
    return value


class Refusal(Exception):
    """An error answer.

    `replayed` says that the endpoint had begun its work, so v1 keeps the answer under the
    idempotency key. `details` are further fields of a v1 error, such as `decline_code`.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        type: str = "invalid_request_error",
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        replayed: bool = False,
        details: Mapping[str, Any] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.code, self.type = status, message, code, type
        self.param, self.headers, self.replayed = param, headers or {}, replayed
        self.details = details or {}

    def body(self, *, v2: bool) -> Obj:
        """Return the JSON of the answer in the shape of the version."""
        if not v2:
            told = {"code": self.code, "message": self.message, "param": self.param, **self.details}
            return {"error": {"type": self.type, **{k: v for k, v in told.items() if v}}}
        error = {"code": self.code or "invalid_request", "message": self.message}
        if self.type in _V2_TYPES:
            error |= {"type": self.type, "doc_url": "https://docs.stripe.com/error-handling"}
        return {"error": error}


_V2_TYPES = {"temporary_session_expired", "idempotency_error"}


class Params(BaseModel):
    """Base of a v1 call's parameters: text in, coerced as Stripe does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    expand: list[str] | None = None


class V2Params(BaseModel):
    """Base of a v2 call's parameters: JSON types, nothing coerced."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Nested(BaseModel):
    """Base of what a v1 parameter holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Metadata = dict[str, str] | Literal[""]
"""Keys to set; an empty value unsets a key, an empty text all of them."""


def with_metadata(old: Mapping[str, str], given: Metadata | None) -> dict[str, str]:
    """Return metadata as an update leaves it."""
    if given is None:
        return dict(old)
    if given == "":
        return {}
    return {key: value for key, value in {**old, **given}.items() if value != ""}


P = TypeVar("P", bound=BaseModel)


def parse(model: type[P], values: object) -> P:
    """Return the parameters, or refuse in Stripe's words.

    Raises:
        Refusal: 400, naming the first parameter that is wrong.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    head, *rest = [str(part) for part in first["loc"]] or ["body"]
    param = head + "".join(f"[{part}]" for part in rest)
    if first["type"] == "extra_forbidden":
        raise Refusal(
            400, f"Received unknown parameter: {param}", code="parameter_unknown", param=param
        )
    if first["type"] == "missing":
        raise Refusal(
            400, f"Missing required param: {param}.", code="parameter_missing", param=param
        )
    raise Refusal(400, f"Invalid {param}: {first['msg']}", param=param)


_BRACKETS = re.compile(r"\[([^\]]*)\]")


def decode_form(text: str) -> Obj:
    """Return `a[b]=1&c[0]=2&d[]=3` as `{"a": {"b": "1"}, "c": ["2"], "d": ["3"]}`."""
    tree: Obj = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        head = name.partition("[")[0]
        node, key = tree, head
        for part in _BRACKETS.findall(name[len(head) :]):
            node = node.setdefault(key, {})
            key = part or str(len(node))
        node[key] = value
    return {key: _with_lists(value) for key, value in tree.items()}


def _with_lists(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    children: Obj = {key: _with_lists(value) for key, value in cast(Obj, node).items()}
    if children and all(key.isdecimal() for key in children):
        return [children[key] for key in sorted(children, key=int)]
    return children


def rfc3339(instant: float) -> str:
    """Write a Unix time as v2 does."""
    return datetime.fromtimestamp(instant, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def unix_seconds(timestamp: str) -> int:
    """Read an RFC 3339 timestamp.

    Raises:
        Refusal: 400.
    """
    try:
        instant = datetime.fromisoformat(timestamp)
    except ValueError:
        raise Refusal(400, f"Invalid timestamp: {timestamp}", code="invalid_fields") from None
    if instant.tzinfo is None:
        raise Refusal(400, f"timestamp has no offset: {timestamp}", code="invalid_fields")
    return int(instant.timestamp())
