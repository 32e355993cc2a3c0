"""Records with their meter events, a Stripe that counts them, and the comparison of the three."""

import dataclasses
import itertools
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.testing import ActivityEnvironment

from activities.stripe_comparison import StripeComparisonActivities
from activities.stripe_hours import Progress
from activities.stripe_summaries import MeterSummaries
from tallystick.contracts import MeterOrder, Reconciled, ReconcileStep, RequestKey
from tallystick.ledger import discrepancies, reconciliations, usage
from tallystick.ledger.database import Ledger
from tallystick.ledger.reconciliation_tables import Discrepancy
from tallystick.ledger.usage import NewRecord
from tallystick.metering import METERS, TOKEN_KINDS, meter_identifier, meter_values
from tests.metering.stand import MeteringStand, Transport, metering_stand
from tests.support.records import served

START = datetime(2026, 11, 10, 8, tzinfo=UTC)
END = datetime(2026, 11, 10, 12, tzinfo=UTC)
"""Closed hours: the stand's clock shows half a minute past the last one at first."""
AT = datetime(2026, 11, 10, 9, 17, 23, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SETTLES = timedelta(minutes=5)
SUMMARIES = "GET /v1/billing/meters/{id}/event_summaries"
CHARGE, INPUT, OUTPUT = list(METERS)[:3]


class Books:
    """Customers by name, what they used, and what a comparison makes of it."""

    def __init__(self, stand: MeteringStand):
        self.stand, self.ledger, self.stripe = stand, stand.ledger, stand.stripe
        summaries = MeterSummaries(stand.stripe.client())
        self.comparison = StripeComparisonActivities(stand.ledger, summaries, SETTLES)
        self.at_stripe: dict[str, str] = {}
        self._runs = itertools.count(1)

    # --- Usage ------------------------------------------------------------------------------------
    async def customers(self, *names: str) -> None:
        for name in names:
            self.at_stripe[name] = await self.stand.customer(name)

    async def use(
        self, request: str, customer: str = "acme", *, at: datetime = AT, nano: int = 1_500,
        **tokens: int,
    ) -> MeterOrder:  # fmt: skip
        """Record a request that was priced, its events in the outbox; returns the order to send."""
        key = RequestKey(customer_id=customer, request_id=request)
        tokens = dict.fromkeys(TOKEN_KINDS, 0) | (tokens or {"input": 100, "output": 20})
        columns = {f"{kind}_tokens": value for kind, value in tokens.items()}
        async with self.ledger.begin() as tx:
            bare = await served(tx, key, at, nano, **columns)
            new = NewRecord(key, bare.attempt_id, bare.columns, meter_values(nano, tokens))
            recorded = await usage.record(tx, new)
        return MeterOrder(key=key, events=recorded.meter_events)

    async def send(self, *orders: MeterOrder) -> None:
        for order in orders:
            await self.stand.send(order)

    async def lie(self, lie: str, order: MeterOrder, meter: str = INPUT, **options: Any) -> str:
        """Let Stripe lie about one event when it is sent; returns its identifier."""
        name = meter_identifier(order.key.customer_id, order.key.request_id, meter)
        await self.stripe.fault(lie, match=name, identifier=name, **options)
        return name

    async def outside(self, customer: str, value: int, meter: str = INPUT) -> None:
        event = {"event_name": meter, "customer": self.at_stripe[customer], "value": value}
        event["timestamp"] = int(AT.timestamp())
        await self.stripe.control("POST", "meter_usage", events=[event])

    # --- Comparing --------------------------------------------------------------------------------
    async def step(self) -> ReconcileStep:
        now = self.stand.now()
        async with self.ledger.begin() as tx:
            opened = await reconciliations.open_run(
                tx, run=f"run-{next(self._runs)}", kind="manual", start=START, end=END, at=now
            )
        return ReconcileStep(reconciliation_id=opened, kind="manual", start=START, end=END, now=now)

    async def compare(self, name: str = "compare_stripe") -> Reconciled:
        """Take one step of a run, now."""
        return await ActivityEnvironment().run(getattr(self.comparison, name), await self.step())

    async def compare_as(
        self, *, attempt: int = 1, after: Any = None, told: list[Any] | None = None
    ) -> Reconciled:
        """Take `compare_stripe` as a worker does who takes over what another has told."""
        environment = ActivityEnvironment()
        environment.info = dataclasses.replace(
            environment.info, attempt=attempt, heartbeat_details=[] if after is None else [after]
        )
        if told is not None:
            environment.on_heartbeat = lambda progress: told.append(_carried(progress))
        return await environment.run(self.comparison.compare_stripe, await self.step())

    async def later(self, **span: float) -> None:
        self.stripe.clock.advance(**span)

    async def settled(self) -> None:
        """Let Stripe have its time to count what it was sent."""
        await self.later(seconds=SETTLES.total_seconds() + 1)

    async def asked(self) -> int:
        """Return how many sums Stripe was asked for so far."""
        return await self.stand.calls(SUMMARIES)

    async def rows(self) -> list[Discrepancy]:
        async with self.ledger.begin() as tx:
            return [each async for each in discrepancies.find(tx)]

    async def row(self) -> Discrepancy:
        """Return the only discrepancy there is."""
        (row,) = await self.rows()
        return row


def _carried(progress: Progress) -> Any:
    """Return what a heartbeat says, as the next one to do the step is told it."""
    return json.loads(progress.model_dump_json())


@asynccontextmanager
async def books_stand(
    ledger: Ledger, transport: Transport = "events", **options: Any
) -> AsyncGenerator[Books, None]:
    async with metering_stand(ledger, transport, **options) as stand:
        yield Books(stand)


def subject(row: Discrepancy) -> tuple[str, dict[str, Any]]:
    """Return the one subject of what is proposed, and its facts."""
    assert row.proposal is not None
    ((name, facts),) = row.proposal["subjects"].items()
    return name, facts
