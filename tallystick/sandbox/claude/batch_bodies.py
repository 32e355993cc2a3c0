"""What the body of a new batch must look like: what is judged at once, for the batch as a whole.

Sizes, `custom_id`s and parameters that no batch may have refuse the whole batch. Whatever else is
wrong with one request comes back as that item's error (facts on Claude, 'Message Batches', which
marks this line as unverified).
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from typing_extensions import TypedDict

from tallystick.sandbox.claude.bodies import validate
from tallystick.sandbox.claude.errors import ApiError

MAX_BATCH_BODY = 256_000_000
"""Bytes. The smaller reading of '256 MB': who keeps to it is right either way."""
MAX_REQUESTS = 100_000

_FORBIDDEN = ("speed", "store", "thread", "threads", "cache_hint", "context_hint")


class BatchRequest(TypedDict):
    """One request of a batch; its `params` are judged one by one, as a message's are."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # pyright: ignore[reportGeneralTypeIssues]

    custom_id: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    params: dict[str, Any]


class _BatchBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    requests: Annotated[list[BatchRequest], Field(min_length=1)]


def check_batch(body: dict[str, Any]) -> list[BatchRequest]:
    """Return the requests of a new batch.

    Raises:
        ApiError: 413 for too many, 400 naming the field.
    """
    requests = body.get("requests")
    if isinstance(requests, list) and len(requests) > MAX_REQUESTS:  # pyright: ignore[reportUnknownArgumentType]
        raise ApiError(413, f"requests: at most {MAX_REQUESTS} are allowed in a batch")
    checked = validate(body, _BatchBody).requests
    seen = set[str]()
    for index, request in enumerate(checked):
        custom_id = request["custom_id"]
        if custom_id in seen:
            raise ApiError(400, f"requests.{index}.custom_id: {custom_id!r} is not unique")
        seen.add(custom_id)
        _check_allowed(request["params"], f"requests.{index}.params")
    return checked


def _check_allowed(params: dict[str, Any], where: str) -> None:
    for name in _FORBIDDEN:
        if params.get(name) is not None:
            raise ApiError(400, f"{where}.{name}: not allowed in batches")
    if params.get("stream"):
        raise ApiError(400, f"{where}.stream: not allowed in batches")
    if params.get("max_tokens") == 0:
        raise ApiError(400, f"{where}.max_tokens: must be at least 1 in batches")
