"""An account between a real ledger and a Stripe on loopback whose clock is moved on.

A closing runs the steps that the agenda names, in its order, each as often as it asks to be looked
at again. One answer token is charged 0.001 cents (10,000 nano-USD), so 100,000 are a dollar.
"""

import itertools
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr
from sqlalchemy import select, text
from sqlmodel import SQLModel, col
from stripe import Invoice as StripeInvoice
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.accounts import AccountActivities
from activities.invoicing import InvoicingActivities
from activities.metering import MeteringActivities
from activities.metering_check import MeteringCheckActivities
from activities.settlement import SettlementActivities
from activities.stripe_catalog import ensure_catalog
from activities.stripe_meters import meter_transport
from activities.stripe_subscriptions import SubscriptionActivities
from activities.stripe_summaries import MeterSummaries
from activities.top_up_collection import TopUpActivities
from tallystick.contracts import MeterOrder, RequestKey, StepOrder, StepResult
from tallystick.ledger import accounts, customers, statements
from tallystick.ledger.account_tables import BillingAccount, Invoice, Notice
from tallystick.ledger.database import Ledger, LedgerUnavailableError, Transaction, entity
from tallystick.ledger.tables import Customer, MeterEvent
from tallystick.plans.moves import billing_zone
from tallystick.plans.statement import Statement
from tallystick.plans.terms import PlanTerms
from tallystick.services import Endpoints
from tallystick.settings import Settings
from tests.sandbox.stripe_stand import LIVE, StripeStand, stripe_stand
from tests.statements.stand import Account, add_plans

ANCHOR = datetime(2026, 11, 30, 12, tzinfo=UTC)
"""On a day that February lacks: periods begin on 30 November, 30 December, 30 January, 28 February,
30 March."""
DAY, HOUR, MINUTE, SECOND = (
    timedelta(days=1),
    timedelta(hours=1),
    timedelta(minutes=1),
    timedelta(seconds=1),
)
DOLLAR = 100_000
"""Answer tokens that are charged a dollar."""
PLANS: Mapping[str, Mapping[str, Any]] = {
    "usage": {"model": "pass-through"},
    "terms": {"model": "pass-through", "payment_terms_days": 60},
    "tiered": {
        "model": "pass-through",
        "tiers": {"mode": "volume", "brackets": [{"factor": "0.5"}]},
    },
    "base": {"model": "hybrid", "base_fee_usd": "49"},
    "plus": {"model": "hybrid", "base_fee_usd": "99"},
    "credit": {"model": "prepaid"},
}
OPEN = ("settle_period", "open_subscription", "check_anchor")
CLOSE = (
    "hold_draft",
    "close_books",
    "verify_metering",
    "settle_period",
    "put_on_invoice",
    "finalize_invoice",
    "open_subscription",
    "check_anchor",
)
CLOSE_PREPAID = ("close_books", "settle_period", "finish_period", "open_subscription")
END = (
    "hold_draft",
    "close_books",
    "verify_metering",
    "settle_period",
    "cancel_subscription",
    "put_on_invoice",
    "finalize_invoice",
    "end_account",
)
MOST_LOOKS = 200


class Books(Account):
    """One customer's account on both sides; `name` is its id at Stripe."""

    def __init__(self, ledger: Ledger, stripe: StripeStand, metering: MeteringActivities):
        super().__init__(ledger)
        self.stripe, self.metering, self.name = stripe, metering, ""
        client = stripe.client()
        account, invoicing = AccountActivities(ledger), InvoicingActivities(ledger, client)
        subscriptions = SubscriptionActivities(ledger, client)
        check = MeteringCheckActivities(ledger, client, MeterSummaries(client))
        self._steps: dict[str, Any] = {
            step.__name__: step
            for step in (
                account.close_books,
                account.finish_period,
                account.end_account,
                SettlementActivities(ledger).settle_period,
                check.verify_metering,
                invoicing.hold_draft,
                invoicing.put_on_invoice,
                invoicing.finalize_invoice,
                invoicing.look_at_invoices,
                subscriptions.open_subscription,
                subscriptions.align_subscription,
                subscriptions.check_anchor,
                subscriptions.cancel_subscription,
                TopUpActivities(ledger, client).collect_top_up,
            )
        }

    # --- Time and steps ---------------------------------------------------------------------------
    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.stripe.account.clock(), UTC)

    async def go(self, to: datetime) -> None:
        """Move Stripe's clock on; what falls due on the way happens."""
        await self.stripe.control("POST", "clock", now=to.timestamp())

    async def later(self, **span: float) -> None:
        await self.go(self.now + timedelta(**span))

    async def step(
        self, name: str, subject: int | str = "", now: datetime | None = None
    ) -> StepResult:
        """Run a step once, now, or by a clock that is ahead of Stripe's."""
        order = StepOrder(customer_id=self.customer, subject=str(subject), now=now or self.now)
        return await ActivityEnvironment().run(self._steps[name], order)

    async def through(self, name: str, subject: int | str = "") -> StepResult:
        """Run a step until it asks for no other look, waiting as long as it says."""
        for _ in range(MOST_LOOKS):
            result = await self.step(name, subject)
            if result.again_at is None:
                return result
            await self.go(result.again_at)
        raise AssertionError(f"{name} never ends: {result.words}")

    async def all(self, steps: Sequence[str], subject: int) -> None:
        for name in steps:
            await self.through(name, subject)

    # --- The account ------------------------------------------------------------------------------
    async def begin(
        self,
        plan: str,
        *,
        card: str | None = "pm_card_visa",
        after: float = 0,
        steps: Sequence[str] = OPEN,
    ) -> None:
        """Add the customer, its account from the anchor on, and so many seconds later all else."""
        params: dict[str, Any] = {"name": self.customer}
        if card is not None:
            params |= {
                "payment_method": card,
                "invoice_settings": {"default_payment_method": card},
            }
        self.name = (await self.stripe.client().v1.customers.create_async(params)).id
        model = PlanTerms.read(PLANS[plan]).model
        async with self.ledger.begin() as tx:
            row = Customer(
                customer_id=self.customer, name="Acme", plan=plan, stripe_customer_id=self.name
            )
            await customers.add(tx, row)
            zone = billing_zone(model, "UTC")
            await accounts.open_account(tx, self.customer, ANCHOR, zone, ANCHOR)
        await self.go(ANCHOR + timedelta(seconds=after))
        await self.all(steps, 0)

    async def end_of(self, ordinal: int) -> datetime:
        return accounts.period_of(await self.account(), ordinal).end

    async def used(self, at: datetime, dollars: float) -> None:
        """Have so many dollars used at an instant, and told to Stripe once it has come."""
        await self.go(max(self.now, at))
        await self.use(at, answer=int(dollars * DOLLAR))
        await self.tell()

    async def tell(self) -> None:
        """Send all that waits in the outbox."""
        async with self.ledger.begin() as tx:
            statement = select(col(MeterEvent.request_id), col(MeterEvent.meter_event_id)).where(
                col(MeterEvent.delivered_at).is_(None), col(MeterEvent.withdrawn_at).is_(None)
            )
            waiting = {row.request_id for row in await tx.execute(statement)}
        for request in sorted(waiting):
            key = RequestKey(customer_id=self.customer, request_id=request)
            environment = ActivityEnvironment()
            order = MeterOrder(key=key, events=100)
            await environment.run(self.metering.send_meter_events, order)

    async def close_at(self, ordinal: int, steps: Sequence[str] = CLOSE) -> None:
        """Close a period ten minutes after its end."""
        await self.go(max(self.now, await self.end_of(ordinal) + 10 * MINUTE))
        await self.all(steps, ordinal)

    async def statement(self, ordinal: int) -> Statement:
        async with self.ledger.begin() as tx:
            stored = await statements.get(tx, self.customer, ordinal)
        assert stored is not None
        return stored.statement

    # --- What is seen -----------------------------------------------------------------------------
    async def invoices(self) -> list[StripeInvoice]:
        """Return the customer's invoices at Stripe, oldest first.

        Without the first one of a subscription, which must be over nothing.
        """
        found = await self.stripe.client().v1.invoices.list_async({"customer": self.name})
        first = [each for each in found.data if each.billing_reason == "subscription_create"]
        assert [each.total for each in first] in ([], [0])
        return [each for each in reversed(found.data) if each not in first]

    async def lines(self, invoice: StripeInvoice) -> list[tuple[str, int]]:
        """Return what an invoice lists, by description: descriptions and cents."""
        listed = await self.stripe.client().v1.invoices.line_items.list_async(
            invoice.id, {"limit": 100}
        )
        return sorted((line.description or "", line.amount) for line in listed.data)

    async def bill(self, number: int) -> list[tuple[str, int]]:
        return await self.lines((await self.invoices())[number])

    async def known(self) -> list[Invoice]:
        return await self._rows(Invoice, Invoice.created_at)

    async def all_notices(self) -> list[Notice]:
        return await self._rows(Notice, Notice.notice_id)

    async def notices(self) -> list[str]:
        return [notice.kind for notice in await self.all_notices()]

    async def notice(self, kind: str) -> Notice:
        (found,) = [notice for notice in await self.all_notices() if notice.kind == kind]
        return found

    async def _rows(self, table: type[SQLModel], by: Any) -> list[Any]:
        async with self.ledger.begin() as tx:
            rows = await tx.execute(select(table).order_by(by))
            return [entity(table, row) for row in rows]

    async def sql(self, statement: str) -> None:
        async with self.ledger.begin() as tx:
            await tx.execute(text(statement))

    async def account(self) -> BillingAccount:
        async with self.ledger.begin() as tx:
            account = await accounts.get(tx, self.customer)
        assert account is not None
        return account


@asynccontextmanager
async def invoicing_stand(ledger: Ledger, **options: Any) -> AsyncGenerator[Books, None]:
    """Yield the books of a customer that is still to be added, an hour before their anchor."""
    settings = Settings(stripe_transport="events", stripe_timeout=10)
    async with stripe_stand(**options) as stripe:
        await stripe.control("POST", "clock", now=(ANCHOR - HOUR).timestamp())
        where = Endpoints(SecretStr("none"), None, SecretStr(LIVE), stripe.url, stripe.url, _NONE)
        async with meter_transport(where, settings) as transport:
            await ensure_catalog(stripe.client())
            await add_plans(ledger, **PLANS)
            metering = MeteringActivities(
                ledger,
                transport,
                linger=0,
                clock=lambda: datetime.fromtimestamp(stripe.account.clock(), UTC),
            )
            yield Books(ledger, stripe, metering)
            await metering.drain()


class Interrupted(Ledger):
    """A ledger that goes away before one of its next transactions, as a killed worker's does."""

    after: int | None = None

    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[Transaction, None]:
        if self.after == 0:
            raise LedgerUnavailableError("killed here")
        if self.after is not None:
            self.after -= 1
        async with super().begin() as tx:
            yield tx


async def killed_everywhere(books: Books, ledger: Interrupted, name: str, subject: int) -> None:
    """Kill a step before each of its transactions, one after the other, and let it finish."""
    for after in itertools.count():
        ledger.after = after
        try:
            await books.through(name, subject)
        except ApplicationError as error:
            kind = error.type
        else:
            return
        finally:
            ledger.after = None
        assert kind == "LedgerUnavailable"


_NONE: frozenset[str] = frozenset()
