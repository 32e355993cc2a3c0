"""GET /v1/organizations/analytics/usage and /cost, for keys that may read reports."""

from typing import ClassVar

from starlette.types import Receive, Scope, Send
from typing_extensions import override

from tallystick.sandbox.claude.api_call import Answer, ApiCall, Call, as_json
from tallystick.sandbox.claude.bodies import validate
from tallystick.sandbox.claude.errors import ApiError
from tallystick.sandbox.claude.http import headers_of
from tallystick.sandbox.claude.keys import may_read_reports
from tallystick.sandbox.claude.report_pages import report_page
from tallystick.sandbox.claude.report_questions import CostQuestion, UsageQuestion, fields_of

BETA = "analytics-usage-cost-2026-08-24"
"""What `anthropic-beta` has to name."""


class _Report(ApiCall):
    question: ClassVar[type[UsageQuestion | CostQuestion]]

    @override
    async def handle(
        self, scope: Scope, receive: Receive, send: Send, request_id: str, key: str
    ) -> None:
        self._service.calls[f"{scope['method']} {scope['path']}"] += 1
        await super().handle(scope, receive, send, request_id, key)

    @override
    async def work(self, call: Call) -> Answer:
        if not may_read_reports(call.key):
            raise ApiError(403, "This key may not read reports: use one with read:analytics")
        if BETA not in headers_of(call.scope).get("anthropic-beta", ""):
            raise ApiError(400, f"anthropic-beta: this endpoint requires {BETA}")
        question = validate(fields_of(call.query), self.question)
        service = self._service
        service.batches.advance()
        return as_json(call, report_page(service.reports, question, service.clock()))


class UsageReport(_Report):
    """Tokens and requests."""

    question = UsageQuestion


class CostReport(_Report):
    """Cents."""

    question = CostQuestion
