"""Admission on its own, against a real ledger and Claude's count."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.admission import AdmissionActivities
from activities.claude_api import ClaudeApi
from tallystick.contracts import Admission, ClaudeRequest
from tallystick.ledger import customers
from tallystick.ledger.database import Ledger
from tallystick.plans.guards import Limits
from tests.sandbox.claude_stand_in import stand_in


class Desk:
    """Admission for one customer, `acme`."""

    def __init__(self, ledger: Ledger, activities: AdmissionActivities):
        self.ledger, self._activities = ledger, activities

    async def admit(self, request_id: str, **changes: Any) -> Admission:
        params = {
            "model": "claude-sonnet-5-5",
            "max_tokens": changes.pop("max_tokens", 1_000),
            "messages": [{"role": "user", "content": changes.pop("text", "What is a tally?")}],
        }
        request = ClaudeRequest.parse(
            {"customer_id": "acme", "request_id": request_id, "params": params, **changes}
        )
        return await ActivityEnvironment().run(self._activities.admit_request, request)

    async def refused(self, request_id: str, **changes: Any) -> ApplicationError:
        with pytest.raises(ApplicationError) as error:
            await self.admit(request_id, **changes)
        return error.value

    async def cap(self, usd: str | Decimal) -> None:
        async with self.ledger.begin() as tx:
            await customers.set_spend_cap(tx, "acme", Decimal(usd))


@asynccontextmanager
async def open_desk(ledger: Ledger) -> AsyncIterator[Desk]:
    """Admit by this ledger; `acme` is in it, or will be."""
    async with stand_in() as claude:
        api = ClaudeApi("sk-ant-test", claude.url, timeout=30)
        limits = Limits(100_000, Decimal(10))
        yield Desk(
            ledger, AdmissionActivities(ledger, api, limits, conversation_cap_usd=Decimal(50))
        )
        await api.close()
