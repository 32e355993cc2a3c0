"""A company with customers over months and years: production worker, web app and Stripe's stand-in.

Everything is what runs in production; only time is virtual. Stripe's webhooks come in over HTTP,
and usage is recorded and metered by the production steps at the instants a test names.
"""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from pydantic import SecretStr
from sqlalchemy import select
from sqlmodel import col
from stripe import StripeClient
from temporalio.client import Client as TemporalClient
from temporalio.testing import ActivityEnvironment

from activities.event_forwarding import EventForwarder
from activities.ledger import LedgerActivities
from activities.metering import MeteringActivities
from activities.stripe_catalog import create_customer, ensure_catalog
from activities.stripe_clients import stripe_client
from activities.stripe_meters import meter_transport
from activities.waking import wake
from tallystick.contracts import MeterOrder, News, RecordOrder, RequestKey
from tallystick.ledger import accounts, attempts, customers, inbox, plan_moves, statements, terms
from tallystick.ledger.account_tables import Invoice, Notice
from tallystick.ledger.attempts import Begun, Completion, NewAttempt
from tallystick.ledger.customers import PlanInForce
from tallystick.ledger.database import Ledger, entity
from tallystick.ledger.tables import Customer, Outcome
from tallystick.plans import PlanTerms
from tallystick.plans.moves import Place, billing_zone, effective_from
from tallystick.plans.periods import period_at
from tallystick.plans.statement import Statement
from tallystick.sandbox.server import serve
from tallystick.sandbox.stripe import create_stripe_app
from tallystick.sandbox.virtual_time import VirtualTime
from tallystick.services import Endpoints
from tallystick.settings import SANDBOX_CLAUDE_KEY, SANDBOX_STRIPE_KEY, Settings
from tallystick.web.app import create_app, utc_now
from tallystick.web.forwarder import BackgroundForwarder
from tallystick.web.health import Thresholds
from tallystick.web.serving import serve as serve_web
from tests.contract.stripe_contract import ContractRecorder
from tests.rerate.stand import reply
from workers.billing import Nudges
from workers.main import Role, working

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = "whsec_town"
_numbers = itertools.count(1)


class Town:
    """The parts, and short ways to let things happen and to look."""

    def __init__(
        self,
        temporal: TemporalClient,
        ledger: Ledger,
        stripe: StripeClient,
        control: httpx.AsyncClient,
        metering: MeteringActivities,
    ):
        self.temporal, self.ledger, self.stripe, self.control = temporal, ledger, stripe, control
        self.time = VirtualTime(temporal, control, quiet=self._inbox_is_empty)
        self._metering = metering
        self._waiting: list[MeterOrder] = []

    # --- Customers --------------------------------------------------------------------------------
    async def plan(self, name: str, **agreed: Any) -> None:
        async with self.ledger.begin() as tx:
            data = PlanTerms.read(agreed).model_dump(mode="json")
            await customers.add_plan(tx, PlanInForce(name, BEGAN, data))

    async def open(
        self, name: str, plan: str, anchor: datetime, *, time_zone: str = "UTC",
        card: str | None = "pm_card_visa",
    ) -> None:  # fmt: skip
        """Add a customer with a card and an account whose first period begins at the anchor."""
        mapped = await create_customer(self.stripe, name, name)
        async with self.ledger.begin() as tx:
            await customers.add(
                tx,
                Customer(
                    customer_id=name, name=name, plan=plan, stripe_customer_id=mapped,
                    time_zone=time_zone,
                ),
            )  # fmt: skip
            standing = await terms.standing(tx, name, anchor)
            assert standing is not None
            assert standing.agreed is not None
            zone = billing_zone(standing.agreed.terms.model, time_zone)
            await accounts.open_account(tx, name, anchor, zone, anchor)
        if card is not None:
            await self.give_card(name, card)
        await wake(self.temporal, name, News())
        self.time.customers.append(name)

    async def stripe_id(self, name: str) -> str:
        async with self.ledger.begin() as tx:
            customer = await customers.get(tx, name)
        assert customer is not None
        assert customer.stripe_customer_id is not None
        return customer.stripe_customer_id

    async def give_card(self, name: str, card: str) -> None:
        """Make a card the one that is charged."""
        stripe_id = await self.stripe_id(name)
        attached = await self.stripe.v1.payment_methods.attach_async(card, {"customer": stripe_id})
        await self.stripe.v1.customers.update_async(
            stripe_id, {"invoice_settings": {"default_payment_method": attached.id}}
        )

    async def move(self, name: str, plan: str, at: datetime) -> None:
        """Decide at `at`, which the clocks have reached, that the customer moves to that plan."""
        async with self.ledger.begin() as tx:
            account = await accounts.get(tx, name)
            standing = await terms.standing(tx, name, at)
            assert account is not None
            assert standing is not None
            assert standing.agreed is not None
            row = await customers.plan_in_force(tx, plan, at)
            assert row is not None
            valid_from = effective_from(
                at,
                Place(standing.agreed.plan, standing.agreed.terms.model),
                Place(plan, PlanTerms.read(row.terms).model),
                to_come=None,
                period_end=period_at(account.anchor, account.time_zone, at)[1].end,
                ends_at=None,
            )
            await plan_moves.add(tx, name, plan, valid_from)
        await wake(self.temporal, name, News())

    async def fails_once(self, name: str, decline_code: str) -> None:
        """Have the customer's next charge fail, whatever the card."""
        order = {"customer": await self.stripe_id(name), "times": 1, "decline_code": decline_code}
        (await self.control.post("/_sandbox/outcomes", json=order)).raise_for_status()

    async def cancel(self, name: str, at: datetime) -> None:
        """End the customer's account at `at`, which the clocks have reached."""
        async with self.ledger.begin() as tx:
            assert await accounts.set_cancel_at(tx, name, at)
        await wake(self.temporal, name, News())

    # --- Usage ------------------------------------------------------------------------------------
    async def use(
        self, name: str, at: datetime, prompt: int = 0, answer: int = 0, *, metered: bool = True
    ) -> None:
        """Serve, record and meter one request at an instant; the clocks may be past it."""
        message = reply(prompt, answer)
        key = RequestKey(customer_id=name, request_id=f"request-{next(_numbers)}")
        async with self.ledger.begin() as tx:
            begun = await attempts.begin(
                tx, NewAttempt(key, "f", message["model"], None, 1, 1), at, max_unknown=5
            )
            assert isinstance(begun, Begun)
            done = Completion(Outcome.SUCCEEDED, usage=message["usage"], reply=message)
            await attempts.complete(tx, begun.attempt_id, done, at)
        order = RecordOrder(key=key, attempt_id=begun.attempt_id)
        nudges = Nudges(self.temporal)
        steps = LedgerActivities(self.ledger, nudges)
        recorded = await ActivityEnvironment().run(steps.record_usage, order)
        await nudges.drain()
        self._waiting.append(MeterOrder(key=key, events=recorded.meter_events))
        if metered:
            await self.meter()

    async def meter(self) -> None:
        """Tell Stripe what it has not been told."""
        for order in self._waiting:
            await ActivityEnvironment().run(self._metering.send_meter_events, order)
        self._waiting.clear()

    # --- Looking ----------------------------------------------------------------------------------
    async def to(self, instant: datetime) -> None:
        """Let everything happen that is due until `instant`."""
        await self.time.to(instant)

    async def statement(self, name: str, ordinal: int) -> Statement:
        async with self.ledger.begin() as tx:
            stored = await statements.get(tx, name, ordinal)
        assert stored is not None, f"{name} has no statement {ordinal}"
        return stored.statement

    async def invoices(self, name: str) -> list[Invoice]:
        statement = (
            select(Invoice)
            .where(col(Invoice.customer_id) == name)
            .order_by(col(Invoice.created_at), col(Invoice.stripe_invoice_id))
        )
        async with self.ledger.begin() as tx:
            return [entity(Invoice, row) for row in await tx.execute(statement)]

    async def notices(self, name: str) -> list[Notice]:
        statement = (
            select(Notice).where(col(Notice.customer_id) == name).order_by(col(Notice.notice_id))
        )
        async with self.ledger.begin() as tx:
            return [entity(Notice, row) for row in await tx.execute(statement)]

    async def _inbox_is_empty(self) -> bool:
        async with self.ledger.begin() as tx:
            return (await inbox.depth(tx)).waiting == 0


@asynccontextmanager
async def open_town(
    temporal: TemporalClient, database_url: str, begins: datetime
) -> AsyncIterator[Town]:
    """Open the town at an instant of Stripe's."""
    settings = Settings(meter_linger=0, shutdown_grace=5)
    app = create_stripe_app()
    contract = ContractRecorder(app)
    async with (
        serve(contract) as stripe_url,
        httpx.AsyncClient(base_url=stripe_url, timeout=60) as control,
    ):
        where = Endpoints(
            anthropic_api_key=SecretStr(SANDBOX_CLAUDE_KEY),
            anthropic_base_url=stripe_url,  # nobody asks Claude anything here
            stripe_api_key=SecretStr(SANDBOX_STRIPE_KEY),
            stripe_api_base=stripe_url,
            stripe_meter_events_base=stripe_url,
            sandboxed=frozenset(),
        )
        ledger = Ledger(database_url)

        def now() -> datetime:
            return datetime.fromtimestamp(app.state.account.clock(), UTC)

        async with (
            stripe_client(where, settings) as stripe,
            meter_transport(where, settings) as transport,
        ):
            await ensure_catalog(stripe)
            metering = MeteringActivities(ledger, transport, linger=0, clock=now)
            forwarder = BackgroundForwarder(EventForwarder(ledger, stripe, utc_now), _of(temporal))
            web = create_app(
                ledger,
                [SecretStr(SECRET)],
                thresholds=Thresholds(timedelta(hours=1).total_seconds(), 1_000),
                wake=forwarder.wake,
            )
            async with forwarder.running(), serve_web(web, host="127.0.0.1", port=0) as web_url:
                webhook = {"url": f"{web_url}/webhooks/stripe", "secret": SECRET}
                (await control.post("/_sandbox/webhooks", json=webhook)).raise_for_status()
                town = Town(temporal, ledger, stripe, control, metering)
                await town.time.set_stripe(begins)
                async with working(temporal, database_url, where, settings, [Role.REQUESTS]):
                    try:
                        yield town
                    finally:
                        await _end_everything(temporal)
        await ledger.close()
    contract.assert_all_valid()


def _of(temporal: TemporalClient) -> Any:
    async def connect() -> TemporalClient:
        return temporal

    return connect


async def _end_everything(temporal: TemporalClient) -> None:
    async for execution in temporal.list_workflows("ExecutionStatus = 'Running'"):
        await temporal.get_workflow_handle(execution.id, run_id=execution.run_id).terminate()
