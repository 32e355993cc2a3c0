"""The models that the stand-in serves: those that the installed SDK knows.

An undated name answers as its dated one where there is one, as the real API's aliases do, so
that billing from the response, not from the request, is put to the test.
"""

import re
from typing import Any, get_args

from anthropic.types.model import Model

from tallystick.sandbox.claude.errors import ApiError

MAX_OUTPUT_TOKENS = 128_000
MAX_PROMPT_TOKENS = 1_000_000
"""The same for each model: the stand-in does not know the real limits."""

MODELS: tuple[str, ...] = get_args(get_args(Model)[0])

_DATED = {re.sub(r"-\d{8}$", "", model): model for model in MODELS if re.search(r"-\d{8}$", model)}
_CANONICAL = {model: _DATED.get(model, model) for model in MODELS}


def resolve(model: str) -> str:
    """Return the canonical id of a model that the stand-in serves.

    Raises:
        ApiError: 404 for any other.
    """
    canonical = _CANONICAL.get(model)
    if canonical is None:
        raise ApiError(404, f"model: {model}")
    return canonical


def geography(model: str, asked: str | None) -> str:
    """Return the `inference_geo` of a response; models before 4.6 know none.

    Raises:
        ApiError: 400 when such a model is asked for one.
    """
    if "-4-5" not in model:
        return asked or "global"
    if asked is not None:
        raise ApiError(400, f"inference_geo: not supported by {model}")
    return "not_available"


def model_info(model: str) -> dict[str, Any]:
    """Describe a model as GET /v1/models does; dates are the epoch, the API's 'unknown'."""
    return {
        "type": "model",
        "id": model,
        "display_name": model.removeprefix("claude-").replace("-", " ").title(),
        "created_at": "1970-01-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": MAX_PROMPT_TOKENS,
        "max_tokens": MAX_OUTPUT_TOKENS,
    }
