"""GET /v1/models and /v1/models/{id}: enough for a client that looks models up."""

from starlette.types import Receive, Scope, Send
from typing_extensions import override

from tallystick.sandbox.claude.endpoint import Endpoint
from tallystick.sandbox.claude.http import answer_headers, send_json
from tallystick.sandbox.claude.models import MODELS, model_info, resolve


class ListModels(Endpoint):
    """All models on one page."""

    @override
    async def handle(
        self, scope: Scope, receive: Receive, send: Send, request_id: str, key: str
    ) -> None:
        data = [model_info(model) for model in MODELS]
        page = {
            "data": data,
            "has_more": False,
            "first_id": data[0]["id"],
            "last_id": data[-1]["id"],
        }
        await send_json(send, 200, page, answer_headers(request_id, "application/json"))


class GetModel(Endpoint):
    """One model."""

    @override
    async def handle(
        self, scope: Scope, receive: Receive, send: Send, request_id: str, key: str
    ) -> None:
        model = model_info(resolve(scope["path_params"]["model"]))
        await send_json(send, 200, model, answer_headers(request_id, "application/json"))
