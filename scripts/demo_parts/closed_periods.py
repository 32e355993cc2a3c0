"""The third act: one customer per billing model, a month in virtual time, and their statements.

The requests are real ones, billed and metered as any other. Then the clocks of the three billing
cycles and of the Stripe stand-in are moved on, past the end of the period: the drafts are held, the
books closed, settled and invoiced, the cards charged, by the worker that served the requests.
"""

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from sqlalchemy import func, select
from sqlmodel import col

from activities.stripe_catalog import create_customer
from activities.waking import wake
from tallystick.contracts import News
from tallystick.errors import TallystickError
from tallystick.ledger import accounts, customers, inbox, invoices, statements, wallet
from tallystick.ledger.account_tables import GrantKind, Invoice
from tallystick.ledger.customers import PlanInForce
from tallystick.ledger.tables import Customer, MeterEvent
from tallystick.plans import PlanTerms
from tallystick.plans.periods import billing_period
from tallystick.plans.statement import Statement
from tallystick.sandbox.virtual_time import VirtualTime

from .show import err
from .stage import Stage

PLANS: Mapping[str, Mapping[str, Any]] = {
    "demo-pass-through": {"model": "pass-through", "markup": "0.2"},
    "demo-hybrid": {
        "model": "hybrid", "markup": "0.2", "base_fee_usd": "20", "allowance": {"usd": "1"},
    },
    "demo-prepaid": {"model": "prepaid", "markup": "0.25"},
}  # fmt: skip
"""Small enough that four requests show what each model does."""
CUSTOMERS = {
    "willow": "demo-pass-through",
    "maple": "demo-hybrid",
    "cedar": "demo-prepaid",
}
CREDIT_USD = 10
REQUESTS = 4
PROMPT_CHARS = 360_000
"""About 90,000 tokens, some 45 cents with Opus 5: Stripe charges no card for less than 50 cents."""
METERING_PATIENCE = 120.0
_LOOK_EVERY = 0.3


@dataclass(frozen=True, slots=True)
class Closed:
    """One customer's closed period: its statement, and the invoices that collected it."""

    statement: Statement
    invoices: tuple[Invoice, ...]

    @property
    def agrees(self) -> bool:
        """Whether Stripe has collected what the statement says, to the cent."""
        paid = sum(each.amount_paid_cents for each in self.invoices)
        return paid == self.statement.due_cents

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        return {
            "customer_id": self.statement.customer_id,
            "model": self.statement.model,
            "usage_usd": str(self.statement.usage_usd),
            "due_cents": self.statement.due_cents,
            "invoices": [each.stripe_invoice_id for each in self.invoices],
            "agrees": self.agrees,
        }


async def run(stage: Stage) -> list[Closed]:
    """Open three accounts, use them, close their first period; returns what it came to.

    Raises:
        TallystickError: when the worker ends by itself, or metering does not come to an end.
    """
    err.print("three customers, one per billing model, use Claude for a month (in virtual time)")
    await stage.local.start_web()
    name = uuid.uuid4().hex[:8]
    ids = [f"{customer}-{name}" for customer in CUSTOMERS]
    anchor = datetime.now(UTC).replace(microsecond=0)
    for customer_id, plan in zip(ids, CUSTOMERS.values(), strict=True):
        await _open(stage, customer_id, plan, anchor)
    await asyncio.gather(*(_ask(stage, each, number) for each in ids for number in range(REQUESTS)))
    await until_metered(stage, ids)
    assert stage.local.stripe_url is not None
    async with httpx.AsyncClient(base_url=stage.local.stripe_url, timeout=60) as stripe:
        time = VirtualTime(stage.temporal, stripe, ids, quiet=lambda: _inbox_is_empty(stage))
        await time.to(billing_period(anchor, "UTC", 1).end + timedelta(hours=1))
    return [await _closed(stage, customer_id) for customer_id in ids]


async def _open(stage: Stage, customer_id: str, plan: str, anchor: datetime) -> None:
    """Add a customer with a card, its account and its cycle, as `customer add` does."""
    stripe_id = await create_customer(stage.stripe, customer_id, customer_id)
    card = await stage.stripe.v1.payment_methods.attach_async(
        "pm_card_visa", {"customer": stripe_id}
    )
    await stage.stripe.v1.customers.update_async(
        stripe_id, {"invoice_settings": {"default_payment_method": card.id}}
    )
    async with stage.ledger.begin() as tx:
        data = PlanTerms.read(PLANS[plan]).model_dump(mode="json")
        await customers.add_plan(tx, PlanInForce(plan, datetime(2026, 1, 1, tzinfo=UTC), data))
        await customers.add(
            tx,
            Customer(
                customer_id=customer_id,
                name=customer_id.split("-", maxsplit=1)[0].capitalize(),
                plan=plan,
                stripe_customer_id=stripe_id,
            ),
        )
        account = await accounts.open_account(tx, customer_id, anchor, "UTC", anchor)
        if data["model"] == "prepaid":
            await wallet.grant(
                tx,
                account,
                kind=GrantKind.PROMOTIONAL,
                nano_usd=CREDIT_USD * 10**9,
                source="demo",
                at=anchor,
            )
    await wake(stage.temporal, customer_id, News())


async def _ask(stage: Stage, customer_id: str, number: int) -> None:
    await stage.client.messages.create(
        customer_id=customer_id,
        request_id=f"month-{number}",
        model="claude-opus-5",
        max_tokens=400,
        messages=[{"role": "user", "content": f"{number} " + "tally " * (PROMPT_CHARS // 6)}],
    )


async def _inbox_is_empty(stage: Stage) -> bool:
    async with stage.ledger.begin() as tx:
        return (await inbox.depth(tx)).waiting == 0


async def until_metered(stage: Stage, ids: list[str]) -> None:
    """Wait until Stripe has acknowledged all that these customers have used.

    Raises:
        TallystickError: it takes too long, or the worker ends by itself.
    """
    waiting = select(func.count()).where(
        col(MeterEvent.customer_id).in_(ids), col(MeterEvent.delivered_at).is_(None)
    )
    try:
        async with asyncio.timeout(METERING_PATIENCE):
            while True:
                stage.check_worker()
                async with stage.ledger.begin() as tx:
                    if not (await tx.execute(waiting)).scalar_one():
                        return
                await asyncio.sleep(_LOOK_EVERY)
    except TimeoutError:
        raise TallystickError("meter events of an act were not acknowledged") from None


async def _closed(stage: Stage, customer_id: str) -> Closed:
    async with stage.ledger.begin() as tx:
        stored = await statements.get(tx, customer_id, 1)
        if stored is None:
            raise TallystickError(f"the first period of {customer_id} was not settled")
        collected_by = await invoices.of_period(tx, customer_id, 1)
    return Closed(stored.statement, tuple(collected_by))
