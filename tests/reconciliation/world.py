"""A small day of real traffic, on one clock, and its reconciliation step by step.

Both stand-ins are served over HTTP, the ledger is a real PostgreSQL, and every request takes the
steps that a worker takes: the attempt committed, Claude called, the outcome committed, the usage
recorded, the meter events sent. Only the clock is ours: it stands where it is set, for both
stand-ins and for everything that asks the time, so that a day, and a month after it, takes no time.

A reconciliation takes the steps of the workflow in its order (`World.reconcile`), each as the
activity that production registers. What it tries again is tried once here.
"""

import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from pydantic import SecretStr
from sqlalchemy import delete, select, text
from sqlmodel import col
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.claude_api import ClaudeApi, ClaudeCallError
from activities.claude_comparison import ClaudeComparisonActivities
from activities.claude_reports import ClaudeReports
from activities.ledger import LedgerActivities
from activities.metering import MeteringActivities
from activities.reconciliations import ReconciliationActivities
from activities.repairs import AppliedRepair, Repairs
from activities.stripe_catalog import create_customer, ensure_catalog
from activities.stripe_clients import stripe_client
from activities.stripe_comparison import StripeComparisonActivities
from activities.stripe_meters import meter_transport
from activities.stripe_summaries import MeterSummaries
from tallystick.contracts import (
    CloseReconciliation,
    MeterOrder,
    OpenReconciliation,
    Reconciled,
    ReconcileOrder,
    ReconcileResult,
    ReconcileStep,
    RecordOrder,
    RequestKey,
)
from tallystick.ledger import accounts, attempts, customers, discrepancies, outbox
from tallystick.ledger.attempts import Begun, Completion, NewAttempt
from tallystick.ledger.database import Ledger, entity
from tallystick.ledger.reconciliation_tables import Discrepancy
from tallystick.ledger.tables import Customer, MeterEvent, Outcome, UsageRecord
from tallystick.pricing import TokenCounts, estimate_input_tokens, prompt_chars
from tallystick.sandbox.claude import create_claude_app
from tallystick.sandbox.claude.report_calls import BETA
from tallystick.sandbox.server import serve
from tallystick.services import Endpoints
from tallystick.settings import SANDBOX_ADMIN_KEY, SANDBOX_CLAUDE_KEY, Settings
from tests.invoicing.stand import ANCHOR
from tests.sandbox.stripe_stand import LIVE, StripeStand, stripe_stand

SONNET, HAIKU = "claude-sonnet-5-5", "claude-haiku-4-5"
HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)
DAY = datetime(2026, 12, 1, tzinfo=UTC)
"""When the day begins: half a day after the accounts of `tests.invoicing.stand`."""
NEXT_DAY = DAY + 24 * HOUR
SETTLES = timedelta(minutes=5)
CLAUDE_TIMEOUT = timedelta(minutes=10)
_CALL_TAKES, _SENT_AFTER = 2 * SECOND, 3 * SECOND
_USAGE_REPORT = "/v1/organizations/analytics/usage"
_CACHED_FROM = 16
"""Tokens from which the stand-in caches a prompt, so that a small one is cached."""


@dataclass(frozen=True)
class Asked:
    """A request that was answered and recorded, and the events that it has in the outbox."""

    key: RequestKey
    at: datetime
    record: UsageRecord
    events: Mapping[str, MeterEvent]

    @property
    def order(self) -> MeterOrder:
        return MeterOrder(key=self.key, events=len(self.events))


class World:
    """The day's customers, what they ask, and what is made of it; `now` is the clock."""

    def __init__(
        self,
        ledger: Ledger,
        stripe: StripeStand,
        claude: httpx.AsyncClient,
        api: ClaudeApi,
        metering: MeteringActivities,
        repairs: Repairs,
        steps: Mapping[str, Callable[[ReconcileStep], Awaitable[Reconciled]]],
        ends: ReconciliationActivities,
    ):
        self.ledger, self.stripe, self.claude, self.api = ledger, stripe, claude, api
        self.metering, self.repairs = metering, repairs
        self._steps, self._ends = steps, ends
        self._recording = LedgerActivities(ledger)
        self._numbers = itertools.count(1)
        self.stripe_ids: dict[str, str] = {}

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.stripe.account.clock(), UTC)

    async def go(self, at: datetime) -> None:
        """Move the clock on; what falls due at Stripe on the way happens."""
        await self.stripe.control("POST", "clock", now=at.timestamp())

    # --- Traffic ----------------------------------------------------------------------------------
    async def add_customer(self, name: str, *, mapped: bool = True, account: bool = False) -> None:
        """Add a customer, known to Stripe or not; with an account, an invoice collects."""
        row = Customer(customer_id=name, name=name, plan="pass-through")
        async with self.ledger.begin() as tx:
            await customers.add(tx, row)
            if account:
                await accounts.open_account(tx, name, ANCHOR, "UTC", ANCHOR)
        if mapped:
            await self.map(name)

    async def map(self, name: str) -> None:
        """Make the customer known to Stripe."""
        self.stripe_ids[name] = mapped = await create_customer(self.stripe.client(), name, name)
        async with self.ledger.begin() as tx:
            await customers.set_stripe_customer(tx, name, mapped)

    def request(self, customer: str) -> RequestKey:
        return RequestKey(customer_id=customer, request_id=f"request-{next(self._numbers):03}")

    async def ask(
        self,
        customer: str,
        at: datetime,
        *,
        key: RequestKey | None = None,
        model: str = SONNET,
        fault: str | None = None,
        options: Mapping[str, Any] | None = None,
        cached: bool = False,
        tokens: int = 400,
        max_tokens: int = 64,
    ) -> Asked:
        """Ask a question that is answered at `at`; its events wait in the outbox."""
        key = key or self.request(customer)
        if fault is not None:
            await self.claude_fault(fault, **(options or {}))
        params = _body(key, model, tokens, max_tokens=max_tokens, cached=cached)
        attempt_id = await self._begin(key, params, at - _CALL_TAKES)
        await self.go(at)
        answer = await self.api.create(params)
        await self._complete(
            attempt_id,
            Completion(
                Outcome.SUCCEEDED,
                claude_request_id=answer.claude_request_id,
                message_id=answer.message["id"],
                usage=answer.message["usage"],
                reply=answer.message,
            ),
        )
        await ActivityEnvironment().run(
            self._recording.record_usage, RecordOrder(key=key, attempt_id=attempt_id)
        )
        return await self._asked(key)

    async def lose(
        self,
        customer: str,
        at: datetime,
        *,
        key: RequestKey | None = None,
        model: str = SONNET,
        fault: str | None = None,
        served: bool = True,
        streamed: bool = False,
        tokens: int = 400,
    ) -> RequestKey:
        """Ask a question whose answer is never known.

        Without a fault the worker dies: after Claude has served the call, or before it is made.
        With one the call itself fails, as the fault has it, and the worker notes what it knows.
        """
        key = key or self.request(customer)
        params = _body(key, model, tokens, max_tokens=32_000 if streamed else 64)
        attempt_id = await self._begin(key, params, at - _CALL_TAKES)
        await self.go(at)
        if fault is not None:
            await self.claude_fault(fault)
            try:
                await self.api.create(params)
            except ClaudeCallError as error:
                unknown = error.failure.indeterminate
                await self._complete(
                    attempt_id,
                    Completion(
                        Outcome.INDETERMINATE if unknown else Outcome.FAILED,
                        claude_request_id=error.claude_request_id,
                        usage=error.usage,
                        error_type=error.failure.type,
                        error_message=str(error),
                    ),
                )
            return key
        if served:
            await self.api.create(params)
        async with self.ledger.begin() as tx:
            await attempts.mark_lost(tx, key)
        return key

    async def _begin(self, key: RequestKey, params: dict[str, Any], at: datetime) -> int:
        await self.go(at)
        new = NewAttempt(
            key,
            fingerprint=key.request_id,
            model=params["model"],
            conversation_id=None,
            estimated_input_tokens=estimate_input_tokens(params).likely,
            prompt_chars=prompt_chars(params),
        )
        async with self.ledger.begin() as tx:
            begun = await attempts.begin(tx, new, at, max_unknown=5)
        assert isinstance(begun, Begun)
        return begun.attempt_id

    async def _complete(self, attempt_id: int, completion: Completion) -> None:
        async with self.ledger.begin() as tx:
            await attempts.complete(tx, attempt_id, completion, self.now)

    async def _asked(self, key: RequestKey) -> Asked:
        async with self.ledger.begin() as tx:
            of = (col(UsageRecord.request_id) == key.request_id,)
            record = entity(UsageRecord, (await tx.execute(select(UsageRecord).where(*of))).one())
            of = (col(MeterEvent.request_id) == key.request_id,)
            rows = await tx.execute(select(MeterEvent).where(*of))
            events = {row.meter: entity(MeterEvent, row) for row in rows}
        return Asked(key, record.served_at, record, events)

    async def send(self, asked: Asked) -> None:
        """Try once to send a request's events, a moment after it was answered or now; those that
        Stripe does not take wait in the outbox."""
        await self.go(max(self.now, asked.at + _SENT_AFTER))
        with suppress(ApplicationError):
            await ActivityEnvironment().run(self.metering.send_meter_events, asked.order)

    async def use(self, customer: str, at: datetime, **options: Any) -> Asked:
        """Ask, and send the events."""
        asked = await self.ask(customer, at, **options)
        await self.send(asked)
        return asked

    # --- What can go wrong ------------------------------------------------------------------------
    async def claude_fault(self, fault: str, **options: Any) -> None:
        """Let the next call to Claude go wrong."""
        rule = {"fault": fault, "match": "", "times": 1, "options": options}
        await self.tell_claude("faults", {"rules": [rule]})

    async def tell_claude(self, path: str, body: Any) -> None:
        (await self.claude.post(f"/_sandbox/{path}", json=body)).raise_for_status()

    async def lie(self, lie: str, asked: Asked, **options: Any) -> None:
        """Let Claude's reports tell otherwise of a request."""
        match = {"ids": [asked.record.message_id]}
        await self.tell_claude("reports/lies", {"lies": [{"lie": lie, "match": match, **options}]})

    async def serve_outside(
        self, at: datetime, model: str, used: TokenCounts, *, requests: int
    ) -> None:
        """Let Claude serve calls that did not go through us, under the same key."""
        row = {
            "at": at.timestamp(),
            "model": model,
            "requests": requests,
            "tokens": used._asdict(),
        }
        await self.tell_claude("reports/outside", {"rows": [row]})

    async def count_at_stripe(self, customer: str, meter: str, at: datetime, value: int) -> None:
        """Let Stripe count an event that did not come from us."""
        event = {
            "event_name": meter,
            "customer": self.stripe_ids[customer],
            "value": value,
            "timestamp": int(at.timestamp()),
        }
        await self.stripe.control("POST", "meter_usage", events=[event])

    async def report_rejection(self, identifier: str, code: str) -> None:
        """Let Stripe's report arrive that it has rejected an event."""
        async with self.ledger.begin() as tx:
            await outbox.reject(
                tx,
                reported=identifier,
                code=code,
                message="A fault that was asked for.",
                event_id=f"evt_{identifier}",
                at=self.now,
            )

    async def forget(self, asked: Asked, *meters: str) -> None:
        """Lose a request's events of these meters from the outbox, as only a database could that
        was restored: its own rules forbid it."""
        async with self.ledger.begin() as tx:
            await tx.execute(text("SET LOCAL session_replication_role = replica"))
            await tx.execute(
                delete(MeterEvent).where(
                    col(MeterEvent.request_id) == asked.key.request_id,
                    col(MeterEvent.meter).in_(meters),
                )
            )

    # --- Reconciling ------------------------------------------------------------------------------
    async def reconcile(
        self, start: datetime = DAY, end: datetime = NEXT_DAY, *, settling: bool = True
    ) -> ReconcileResult:
        """Take the steps of one run by hand over [start, end), in the workflow's order.

        Without `settling` it stops where the workflow would wait for Stripe to count.
        """
        run = f"run-{next(self._numbers)}"
        order = ReconcileOrder(kind="manual", start=start, end=end)
        wanted = OpenReconciliation(order=order, run=run, scheduled_at=None, now=self.now)
        opened = await ActivityEnvironment().run(self._ends.open_reconciliation, wanted)
        failed: dict[str, str] = {}

        async def take(name: str) -> Reconciled | None:
            step = opened.step.model_copy(update={"now": self.now})
            try:
                return await ActivityEnvironment().run(self._steps[name], step)
            except ApplicationError as error:
                failed[name] = error.message
                return None

        for name in ("read_reports", "compare_claude", "compare_costs"):
            whole_days = end - start >= 24 * HOUR
            if (name != "compare_costs" or whole_days) and await take(name) is None:
                break
        await take("compare_outbox")
        compared = await take("compare_stripe")
        again = compared is not None and compared.again
        repaired = await take("apply_repairs")
        if again or (repaired is not None and (repaired.found or repaired.again)):
            await self.go(self.now + opened.settles)
        await take("compare_stripe" if again else "recheck_discrepancies")
        closing = opened.step.model_copy(update={"now": self.now})
        return await ActivityEnvironment().run(
            self._ends.close_reconciliation, CloseReconciliation(step=closing, failed=failed)
        )

    async def found(self) -> list[Discrepancy]:
        """Return all discrepancies, in the order in which they were found."""
        async with self.ledger.begin() as tx:
            return [each async for each in discrepancies.find(tx)]

    async def apply(self, discrepancy: Discrepancy) -> AppliedRepair:
        """Do what is proposed, as a person who has decided."""
        assert discrepancy.discrepancy_id is not None
        return await self.repairs.apply(
            discrepancy.discrepancy_id, by="operator", dry_run=False, now=self.now
        )

    # --- What there is, by each side itself -------------------------------------------------------
    async def served(self) -> TokenCounts:
        """Return all that Claude has served so far, by its journal."""
        totals = (await self.claude.get("/_sandbox/totals")).raise_for_status().json()["served"]
        return TokenCounts(**{name: totals.get(name, 0) for name in TokenCounts._fields})

    async def reported(self) -> dict[tuple[str, datetime], TokenCounts]:
        """Return what the usage report says of each model and hour of the day."""
        asked = {
            "starting_at": DAY.isoformat(),
            "ending_at": NEXT_DAY.isoformat(),
            "time_bucket_width": "1h",
            "group_by[]": "model",
            "limit": 1_000,
        }
        headers = {
            "Authorization": f"Bearer {SANDBOX_ADMIN_KEY}",
            "anthropic-version": "2023-06-01",
            "anthropic-beta": BETA,
        }
        answer = await self.claude.get(_USAGE_REPORT, params=asked, headers=headers)
        page = answer.raise_for_status().json()
        assert not page["has_more"]
        sums: dict[tuple[str, datetime], TokenCounts] = {}
        for row in page["data"]:
            used, writes = row["usage"], row["usage"]["cache_creation"]
            at = datetime.fromisoformat(row["starting_at"])
            sums[row["group"]["model"], at] = TokenCounts(
                input=used["uncached_input_tokens"],
                output=used["output_tokens"],
                cache_write_5m=writes["ephemeral_5m_input_tokens"],
                cache_write_1h=writes["ephemeral_1h_input_tokens"],
                cache_read=used["cache_read_input_tokens"],
            )
        return sums

    async def counted(self) -> dict[tuple[str, str], int]:
        """Return what counts at Stripe, by its customer and meter."""
        totals = await self.stripe.totals()
        return {
            (each["customer"], each["event_name"]): int(each["sum"])
            for each in totals["by_customer"]
        }

    async def rows(self, statement: str) -> list[Any]:
        """Ask the ledger."""
        async with self.ledger.begin() as tx:
            return list(await tx.execute(text(statement)))

    async def repairs_of(self, found: Discrepancy) -> tuple[tuple[str, str], ...]:
        """Return what was tried about a discrepancy, each with its outcome."""
        async with self.ledger.begin() as tx:
            tried = await discrepancies.repairs_of(tx, found.discrepancy_id or 0)
        return tuple((each.repair, each.outcome or "unknown") for each in tried)

    async def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return all rows of what may be changed by a repair, and what counts at Stripe."""
        rows: dict[str, list[tuple[Any, ...]]] = {}
        async with self.ledger.begin() as tx:
            for table in _MAY_CHANGE:
                found = await tx.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2"))
                rows[table] = [tuple(row) for row in found]
        entries = (await self.stripe.control("GET", "journal"))["entries"]
        rows["stripe"] = [
            (each["identifier"], each["customer"], each["value"], each["rejected"])
            for each in entries
        ]
        return rows


_MAY_CHANGE = (
    "attempts", "usage_records", "adjustments", "meter_events", "attempt_settlements",
    "meter_corrections", "collection_corrections", "meter_rejections", "discrepancies",
    "discrepancy_events", "repairs", "statements", "notices",
)  # fmt: skip


def _body(
    key: RequestKey, model: str, tokens: int, *, max_tokens: int = 64, cached: bool = False
) -> dict[str, Any]:
    """Return a question of so many tokens; every request's is its own."""
    name = f"<{key.customer_id}/{key.request_id}> "
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": name + "tally " * (tokens * 4 // 6)}],
    }
    if cached:
        kept = {"type": "ephemeral", "ttl": "1h"}
        said = name + "Answer as the keeper of the stock. " * 30
        body["system"] = [{"type": "text", "text": said, "cache_control": kept}]
    return body


@asynccontextmanager
async def open_world(ledger: Ledger, *, admin_key: bool = True) -> AsyncGenerator[World, None]:
    """Serve both stand-ins and yield a world without customers, on the morning of the day."""
    settings = Settings(stripe_transport="stream", stripe_timeout=10)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        stripe = await enter(stripe_stand())
        await stripe.control("POST", "clock", now=(ANCHOR - HOUR).timestamp())
        claude_app = create_claude_app(
            clock=stripe.account.clock, minimum_cached_tokens=_CACHED_FROM
        )
        claude_url = await enter(serve(claude_app))
        claude = await enter(httpx.AsyncClient(base_url=claude_url, timeout=60, verify=False))
        where = Endpoints(
            SecretStr(SANDBOX_CLAUDE_KEY), claude_url, SecretStr(LIVE), stripe.url, stripe.url,
            frozenset(),
        )  # fmt: skip
        client = await enter(stripe_client(where, settings))
        transport = await enter(meter_transport(where, settings))
        api = ClaudeApi(SANDBOX_CLAUDE_KEY, claude_url, timeout=30)
        stack.push_async_callback(api.close)
        reports = ClaudeReports(SANDBOX_ADMIN_KEY, claude_url, timeout=30)
        stack.push_async_callback(reports.close)
        await ensure_catalog(client)

        def clock() -> datetime:
            return datetime.fromtimestamp(stripe.account.clock(), UTC)

        metering = MeteringActivities(ledger, transport, linger=0, clock=clock)
        repairs = Repairs(ledger, client, transport, clock=clock)
        compares_claude = ClaudeComparisonActivities(
            ledger, reports if admin_key else None, (), SETTLES, CLAUDE_TIMEOUT
        )
        compares_stripe = StripeComparisonActivities(ledger, MeterSummaries(client), SETTLES)
        steps = (
            compares_claude.read_reports,
            compares_claude.compare_claude,
            compares_claude.compare_costs,
            compares_stripe.compare_outbox,
            compares_stripe.compare_stripe,
            compares_stripe.recheck_discrepancies,
            repairs.apply_repairs,
        )
        yield World(
            ledger,
            stripe,
            claude,
            api,
            metering,
            repairs,
            {step.__name__: step for step in steps},
            ReconciliationActivities(ledger, 100, SETTLES),
        )
        await metering.drain()
