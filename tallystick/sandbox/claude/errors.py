"""The ways the stand-in says no, in the JSON from which the SDK makes its exceptions.

The SDK picks a class by HTTP status and `error.details.error_code`, and reads `error.type` and the
`request-id` header (facts on Claude, 'Errors'). A spend limit is a 429 with a code and without
`retry-after`: what tells it from a rate limit.
"""

from collections.abc import Mapping
from typing import Any

ERROR_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "api_error",
    529: "overloaded_error",
}
"""`error.type` by HTTP status."""


class ApiError(Exception):
    """The request is answered with this error.

    `code` becomes `error.details.error_code`; `retry_after` is in seconds.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        retry_after: float | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.code, self.retry_after = status, message, code, retry_after

    @property
    def type(self) -> str:
        """The broad category, `error.type`."""
        return ERROR_TYPES[self.status]

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the error as the API's JSON."""
        return error_body(self.type, self.message, request_id, code=self.code)


def error_body(
    error_type: str, message: str, request_id: str, *, code: str | None = None
) -> dict[str, Any]:
    """Return the API's error object, which also travels as a stream's `error` event."""
    error: dict[str, Any] = {"type": error_type, "message": message}
    if code is not None:
        error["details"] = {"error_code": code}
    return {"type": "error", "error": error, "request_id": request_id}


class ConnectionCut(Exception):
    """Cut the connection now instead of going on: with a reset, or by just closing it."""

    def __init__(self, *, reset: bool = True):
        super().__init__()
        self.reset = reset


def authenticate(headers: Mapping[str, str]) -> str:
    """Return the API key of a request. Any key will do: accounts are the real service's business.

    Raises:
        ApiError: 401 without a bearer token, 400 without `anthropic-version`.
    """
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise ApiError(401, "authentication: a bearer token is required")
    if "anthropic-version" not in headers:
        raise ApiError(400, "anthropic-version: header is required")
    return key.strip()
