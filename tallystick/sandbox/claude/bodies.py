"""What a Messages body must look like, or 400 in the API's style: 'max_tokens: Field required'.

Only what an application can get wrong is checked, and what the stand-in relies on. Parameters
that no version of the SDK knows are refused, as the real API refuses them: our own fields must
never leak into a call. Sources: facts on Claude, 'SDK client', and the SDK's parameter types.
"""

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from typing_extensions import TypedDict

from tallystick.sandbox.claude.errors import ApiError

_M = TypeVar("_M", bound=BaseModel)
_B = TypeVar("_B", bound="CountedBody")


class CacheControl(TypedDict, total=False):
    """A cache breakpoint; without `ttl` it lives five minutes."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"]


class Block(TypedDict, total=False):
    """Any content block; what is inside is judged by its type, loosely."""

    __pydantic_config__ = ConfigDict(extra="allow")  # pyright: ignore[reportGeneralTypeIssues]

    type: str
    cache_control: CacheControl | None


class Tool(TypedDict, total=False):
    """Any tool."""

    __pydantic_config__ = ConfigDict(extra="allow")  # pyright: ignore[reportGeneralTypeIssues]

    cache_control: CacheControl | None


class Turn(TypedDict):
    """One message of the conversation."""

    role: Literal["user", "assistant", "system"]
    content: Annotated[str, StringConstraints(min_length=1)] | list[Block]


class CountedBody(BaseModel):
    """The body of /v1/messages/count_tokens, and what /v1/messages shares with it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str
    messages: Annotated[list[Turn], Field(min_length=1)]
    system: str | list[Block] = ""
    tools: list[Tool] = Field(default_factory=list[Tool])
    cache_control: CacheControl | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None
    context_management: dict[str, Any] | None = None
    mcp_servers: list[dict[str, Any]] | None = None
    speed: Literal["standard", "fast"] | None = None
    user_profile_id: str | None = None
    workspace_id: str | None = None
    billing_policy: Any = None
    compaction: Any = None


class MessagesBody(CountedBody):
    """The body of /v1/messages."""

    max_tokens: Annotated[int, Field(ge=0)]
    stream: bool = False
    stop_sequences: list[str] | None = None
    inference_geo: str | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    metadata: dict[str, Any] | None = None
    container: Any = None
    diagnostics: Any = None
    fallback_credit_token: Any = None
    fallbacks: Any = None
    thread: Any = None


def parse_json(raw: bytes) -> dict[str, Any]:
    """Return the JSON object of a request body.

    Raises:
        ApiError: 400.
    """
    try:
        body = json.loads(raw)
    except ValueError:
        raise ApiError(400, "The request body is not valid JSON") from None
    if not isinstance(body, dict):
        raise ApiError(400, "The request body must be a JSON object")
    return body  # pyright: ignore[reportUnknownVariableType] - JSON objects have text keys


def check_counted(body: dict[str, Any]) -> CountedBody:
    """Validate a body for counting.

    Raises:
        ApiError: 400 naming the field.
    """
    return _check_turns(validate(body, CountedBody))


def check_messages(body: dict[str, Any]) -> MessagesBody:
    """Validate a body for a reply.

    Raises:
        ApiError: 400 naming the field.
    """
    for gone in ("temperature", "top_p", "top_k"):
        if gone in body:
            raise ApiError(400, f"{gone}: this parameter is no longer supported")
    return _check_turns(validate(body, MessagesBody))


def validate(body: dict[str, Any], model: type[_M]) -> _M:
    """Return a body as what it must be.

    Raises:
        ApiError: 400 naming the field.
    """
    try:
        return model.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ApiError(400, f"{where}: {first['msg']}") from None


def _check_turns(checked: _B) -> _B:
    for index, turn in enumerate(checked.messages):
        _check_turn(turn, f"messages.{index}")
    return checked


def _check_turn(turn: Turn, where: str) -> None:
    if isinstance(turn["content"], str):
        return
    for index, block in enumerate(turn["content"]):
        here = f"{where}.content.{index}"
        kind = block.get("type")
        if kind is None:
            raise ApiError(400, f"{here}.type: Field required")
        if kind == "text" and not block.get("text"):
            raise ApiError(400, f"{here}.text: text content blocks must be non-empty")
        if kind == "document" and turn["role"] == "assistant":
            raise ApiError(400, f"{here}: document blocks are not allowed in assistant messages")
        if kind == "text" and turn["role"] == "user" and block.get("citations"):
            raise ApiError(400, f"{here}.citations: must be empty in user messages")
