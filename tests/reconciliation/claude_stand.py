"""A ledger and a Claude of its own clock, and the comparison of the two step by step.

Calls are real ones to the stand-in, with their attempts and records; what Claude serves besides,
and what its reports tell otherwise, is ordered by the stand-in's control routes.
"""

import itertools
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from sqlalchemy import select, text
from sqlmodel import col
from temporalio.testing import ActivityEnvironment

from activities.claude_api import Answer, ClaudeApi
from activities.claude_comparison import ClaudeComparisonActivities
from activities.claude_reports import ClaudeReports
from activities.ledger import LedgerActivities
from tallystick.contracts import Reconciled, ReconcileStep, RecordOrder, RequestKey
from tallystick.ledger import attempt_settlements, attempts, customers, discrepancies
from tallystick.ledger import reconciliations as runs
from tallystick.ledger.attempts import Begun, Completion, NewAttempt
from tallystick.ledger.database import Ledger, entity
from tallystick.ledger.reconciliation_tables import (
    AttemptSettlement,
    Discrepancy,
    Reconciliation,
)
from tallystick.ledger.tables import Customer, Outcome
from tallystick.pricing import TokenCounts, estimate_input_tokens, prompt_chars
from tallystick.sandbox.claude import create_claude_app
from tallystick.sandbox.server import serve
from tallystick.settings import SANDBOX_ADMIN_KEY, SANDBOX_CLAUDE_KEY

SONNET = "claude-sonnet-5-5"
DAY = datetime(2026, 12, 1, tzinfo=UTC)
HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)
LONGEST, SETTLES = timedelta(minutes=10), timedelta(minutes=5)


@dataclass(frozen=True)
class Made:
    """A call whose attempt is committed, and what Claude answered."""

    key: RequestKey
    attempt_id: int
    answer: Answer | None

    @property
    def counts(self) -> TokenCounts:
        assert self.answer is not None
        return counts_of(self.answer.message["usage"])


@dataclass
class ClaudeStand:
    """What may happen at Claude and in the ledger; `now` is both clocks."""

    ledger: Ledger
    http: httpx.AsyncClient
    api: ClaudeApi
    steps: ClaudeComparisonActivities
    now: datetime = DAY

    # --- Calls ------------------------------------------------------------------------------------
    async def call(
        self, at: datetime, key: str = "", *, served: bool = True, tokens: int = 300
    ) -> Made:
        """Call Claude under a committed attempt; how it ends is not in the ledger yet."""
        name = RequestKey(customer_id="acme", request_id=key or f"r-{next(_numbers)}")
        params = {
            "model": SONNET,
            "max_tokens": 64,
            "messages": [{"role": "user", "content": f"<{name.request_id}> " + "tally " * tokens}],
        }
        size = estimate_input_tokens(params).likely
        new = NewAttempt(name, name.request_id, SONNET, None, size, prompt_chars(params))
        self.now = at - SECOND
        async with self.ledger.begin() as tx:
            begun = await attempts.begin(tx, new, self.now, max_unknown=9)
        assert isinstance(begun, Begun)
        self.now = at
        return Made(name, begun.attempt_id, await self.api.create(params) if served else None)

    async def answered(self, made: Made, at: datetime | None = None) -> None:
        """Commit the answer, which came then."""
        assert made.answer is not None
        message = made.answer.message
        done = Completion(
            Outcome.SUCCEEDED, message_id=message["id"], usage=message["usage"], reply=message
        )
        async with self.ledger.begin() as tx:
            await attempts.complete(tx, made.attempt_id, done, at or self.now)

    async def record(self, made: Made) -> None:
        order = RecordOrder(key=made.key, attempt_id=made.attempt_id)
        await ActivityEnvironment().run(LedgerActivities(self.ledger).record_usage, order)

    async def lost(self, made: Made) -> None:
        """Give the call up: its outcome is unknown from now on."""
        async with self.ledger.begin() as tx:
            await attempts.mark_lost(tx, made.key)

    async def use(self, at: datetime, key: str = "") -> Made:
        """Call, answer and record."""
        made = await self.call(at, key)
        await self.answered(made)
        await self.record(made)
        return made

    # --- What Claude tells ------------------------------------------------------------------------
    async def tell(self, path: str, body: Any) -> None:
        (await self.http.post(f"/_sandbox/reports{path}", json=body)).raise_for_status()

    async def outside(self, at: datetime, counts: TokenCounts, **more: Any) -> None:
        row = {"at": at.timestamp(), "model": SONNET, "tokens": counts._asdict(), **more}
        await self.tell("/outside", {"rows": [row]})

    async def hide(self, since: datetime, until: datetime) -> None:
        """Let the reports not have yet what was served then."""
        match = {"since": since.timestamp(), "until": until.timestamp()}
        await self.tell("/lies", {"lies": [{"lie": "hide", "match": match}]})

    async def stop_lying(self) -> None:
        (await self.http.delete("/_sandbox/reports/lies")).raise_for_status()

    # --- Comparing --------------------------------------------------------------------------------
    async def step(self, start: datetime, end: datetime) -> ReconcileStep:
        async with self.ledger.begin() as tx:
            opened = await runs.open_run(
                tx, run=f"run-{next(_numbers)}", kind="manual", start=start, end=end, at=self.now
            )
        return ReconcileStep(
            reconciliation_id=opened, kind="manual", start=start, end=end, now=self.now
        )

    async def compare(
        self, start: datetime = DAY, end: datetime = DAY + 24 * HOUR
    ) -> tuple[Reconciled, Reconciled, Reconciled]:
        """Read the reports and compare tokens and money, an hour and more after all of it."""
        self.now = max(self.now, end + HOUR + MINUTE)
        step = await self.step(start, end)
        run = ActivityEnvironment().run
        return (
            await run(self.steps.read_reports, step),
            await run(self.steps.compare_claude, step),
            await run(self.steps.compare_costs, step),
        )

    async def settle(self, found: Discrepancy) -> int:
        """Do what a finding proposes; returns how many attempts that settles."""
        assert found.proposal is not None
        assert found.discrepancy_id is not None
        settled = 0
        async with self.ledger.begin() as tx:
            for subject, facts in found.proposal["subjects"].items():
                settled += await attempt_settlements.settle(
                    tx,
                    reconciliation_id=found.found_by,
                    discrepancy_id=found.discrepancy_id,
                    subject=subject,
                    facts=facts,
                    at=self.now,
                )
        return settled

    # --- What there is ----------------------------------------------------------------------------
    async def found(self) -> list[Discrepancy]:
        async with self.ledger.begin() as tx:
            return [each async for each in discrepancies.find(tx)]

    async def settlements(self) -> list[AttemptSettlement]:
        statement = select(AttemptSettlement).order_by(col(AttemptSettlement.attempt_id))
        async with self.ledger.begin() as tx:
            return [entity(AttemptSettlement, row) for row in await tx.execute(statement)]

    async def run(self, step: ReconcileStep) -> Reconciliation:
        async with self.ledger.begin() as tx:
            return await runs.get(tx, step.reconciliation_id)

    async def rows(self, statement: str) -> list[Any]:
        async with self.ledger.begin() as tx:
            return list(await tx.execute(text(statement)))


_numbers = itertools.count(1)


def counts_of(usage: dict[str, Any]) -> TokenCounts:
    """Return the counts of a plain usage object."""
    return TokenCounts(usage["input_tokens"], usage["output_tokens"])


@asynccontextmanager
async def open_claude(
    ledger: Ledger, *, admin_key: str | None = SANDBOX_ADMIN_KEY, keys: Collection[str] = ()
) -> AsyncGenerator[ClaudeStand, None]:
    """Serve a Claude for one test, to a ledger with one customer."""
    clock: list[ClaudeStand] = []
    app = create_claude_app(clock=lambda: clock[0].now.timestamp() if clock else 0.0)
    async with (
        serve(app) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as http,
    ):
        api = ClaudeApi(SANDBOX_CLAUDE_KEY, url, timeout=30)
        reports = None if admin_key is None else ClaudeReports(admin_key, url, timeout=30)
        steps = ClaudeComparisonActivities(ledger, reports, keys, SETTLES, LONGEST)
        async with ledger.begin() as tx:
            await customers.add(tx, Customer(customer_id="acme", name="Acme", plan="pass-through"))
        clock.append(ClaudeStand(ledger, http, api, steps))
        try:
            yield clock[0]
        finally:
            await api.close()
            if reports is not None:
                await reports.close()
