"""A customer with an account in a real ledger, served, moved, closed and settled as in production.

Periods lie far ahead, so that what PostgreSQL dates by its own clock (adjustments) is always dated
into the period that is open.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlmodel import col
from temporalio.testing import ActivityEnvironment

from activities.accounts import AccountActivities
from activities.ledger import LedgerActivities
from activities.settlement import SettlementActivities
from tallystick.contracts import RecordOrder, RequestKey, StepOrder, StepResult
from tallystick.ledger import accounts, attempts, customers, plan_moves, statements, terms, wallet
from tallystick.ledger.account_tables import BillingAccount, GrantKind
from tallystick.ledger.attempts import Begun, Completion, NewAttempt
from tallystick.ledger.customers import PlanInForce
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Adjustment, Customer, Outcome, UsageRecord
from tallystick.plans import PlanTerms
from tallystick.plans.moves import MoveRefusedError, Place, billing_zone, effective_from
from tallystick.plans.periods import period_at
from tallystick.plans.statement import Statement
from tallystick.pricing import PriceBook
from tallystick.rerating import rerate
from tests.rerate.stand import SONNET, reply

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
ANCHOR = datetime(2040, 11, 1, tzinfo=UTC)
"""Period 1 is November 2040 with 30 days, 2 December, 3 January."""
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
LATER = timedelta(days=2)
"""After a period's end; by then its closing waits for nobody."""
_numbers = itertools.count(1)


async def add_plans(ledger: Ledger, **plans: Mapping[str, Any]) -> None:
    async with ledger.begin() as tx:
        for name, agreed in plans.items():
            data = PlanTerms.read(agreed).model_dump(mode="json")
            await customers.add_plan(tx, PlanInForce(name, BEGAN, data))


@dataclass
class Account:
    """One customer's account, and what may happen to it."""

    ledger: Ledger
    customer: str = "acme"

    async def open(self, plan: str, *, name: str = "Acme", time_zone: str = "UTC") -> "Account":
        row = Customer(customer_id=self.customer, name=name, plan=plan, time_zone=time_zone)
        async with self.ledger.begin() as tx:
            await customers.add(tx, row)
            standing = await terms.standing(tx, self.customer, ANCHOR)
            assert standing is not None
            assert standing.agreed is not None
            zone = billing_zone(standing.agreed.terms.model, time_zone)
            await accounts.open_account(tx, self.customer, ANCHOR, zone, ANCHOR)
        return self

    # --- Usage ------------------------------------------------------------------------------------
    async def answered(
        self, at: datetime, prompt: int = 0, answer: int = 0, *, conversation: str | None = None,
        model: str | None = None, **usage: Any,
    ) -> RecordOrder:  # fmt: skip
        """Let Claude answer; returns what is still to be recorded."""
        message = reply(prompt, answer, **({"model": model} if model else {}))
        message["usage"] |= usage
        key = RequestKey(customer_id=self.customer, request_id=f"request-{next(_numbers)}")
        async with self.ledger.begin() as tx:
            new = NewAttempt(key, "f", message["model"], conversation, 1, 1)
            begun = await attempts.begin(tx, new, at, max_unknown=5)
            assert isinstance(begun, Begun)
            done = Completion(Outcome.SUCCEEDED, usage=message["usage"], reply=message)
            await attempts.complete(tx, begun.attempt_id, done, at)
        return RecordOrder(key=key, attempt_id=begun.attempt_id)

    async def record(self, order: RecordOrder) -> None:
        await ActivityEnvironment().run(LedgerActivities(self.ledger).record_usage, order)

    async def use(self, at: datetime, prompt: int = 0, answer: int = 0, **more: Any) -> None:
        await self.record(await self.answered(at, prompt, answer, **more))

    async def lose(self, at: datetime, outcome: Outcome) -> None:
        """Let a call end without an answer."""
        key = RequestKey(customer_id=self.customer, request_id=f"request-{next(_numbers)}")
        async with self.ledger.begin() as tx:
            begun = await attempts.begin_first(tx, NewAttempt(key, "f", SONNET, None, 1_000, 1), at)
            assert begun is not None
            await attempts.complete(tx, begun.attempt_id, Completion(outcome), at)

    async def reprice(self, book: PriceBook) -> int:
        """Book what another price book makes of all that was used; returns how many changed."""
        async with self.ledger.begin() as tx:
            changed = await rerate(
                tx, BEGAN, ANCHOR + 999 * DAY, customer_id=self.customer, book=book, booking=True
            )
        return changed.booked

    # --- The account ------------------------------------------------------------------------------
    async def account(self) -> BillingAccount:
        async with self.ledger.begin() as tx:
            account = await accounts.get(tx, self.customer)
        assert account is not None
        return account

    async def move(self, at: datetime, plan: str) -> None:
        """Decide at `at` that the customer moves to that plan, unless it is there or will be."""
        account = await self.account()
        async with self.ledger.begin() as tx:
            standing = await terms.standing(tx, self.customer, at)
            assert standing is not None
            assert standing.agreed is not None
            wanted = await customers.plan_in_force(tx, plan, at)
            assert wanted is not None
            to_come = await plan_moves.to_come(tx, self.customer, at)
            try:
                takes_effect = effective_from(
                    at,
                    Place(standing.agreed.plan, standing.agreed.terms.model),
                    Place(plan, PlanTerms.read(wanted.terms).model),
                    to_come=to_come.plan if to_come else None,
                    period_end=period_at(account.anchor, account.time_zone, at)[1].end,
                    ends_at=account.cancel_at,
                )
            except MoveRefusedError:
                return
            await plan_moves.add(tx, self.customer, plan, takes_effect)

    async def cancel(self, at: datetime) -> None:
        async with self.ledger.begin() as tx:
            assert await accounts.set_cancel_at(tx, self.customer, at)

    async def give(self, usd: int, source: str, at: datetime, **more: Any) -> None:
        async with self.ledger.begin() as tx:
            account = await accounts.lock(tx, self.customer)
            assert account is not None
            kind = more.pop("kind", GrantKind.PAID)
            assert await wallet.grant(
                tx, account, kind=kind, nano_usd=usd * 10**9, source=source, at=at, **more
            )

    # --- Closing ----------------------------------------------------------------------------------
    async def close_books(self, ordinal: int) -> StepResult:
        return await self._step(AccountActivities(self.ledger).close_books, ordinal)

    async def settle(self, ordinal: int) -> Statement | None:
        """Settle the period; None where that writes no statement."""
        await self._step(SettlementActivities(self.ledger).settle_period, ordinal)
        async with self.ledger.begin() as tx:
            stored = await statements.get(tx, self.customer, ordinal)
        return stored.statement if stored else None

    async def finish(self, ordinal: int) -> None:
        await self._step(AccountActivities(self.ledger).finish_period, ordinal)

    async def close(self, ordinal: int) -> Statement:
        """Do all of a period's end."""
        await self.close_books(ordinal)
        statement = await self.settle(ordinal)
        assert statement is not None
        await self.finish(ordinal)
        return statement

    async def _step(self, step: Any, ordinal: int) -> StepResult:
        account = await self.account()
        now = accounts.period_of(account, ordinal).end + LATER
        order = StepOrder(customer_id=self.customer, subject=str(ordinal), now=now)
        return await ActivityEnvironment().run(step, order)

    # --- What the ledger says ---------------------------------------------------------------------
    async def charged_nano(self) -> int:
        """Everything the ledger has charged the customer."""
        async with self.ledger.begin() as tx:
            of_records = select(func.coalesce(func.sum(col(UsageRecord.charge_nano_usd)), 0)).where(
                col(UsageRecord.customer_id) == self.customer
            )
            of_adjustments = select(
                func.coalesce(func.sum(col(Adjustment.charge_nano_usd)), 0)
            ).where(col(Adjustment.customer_id) == self.customer)
            return int((await tx.execute(of_records)).scalar_one()) + int(
                (await tx.execute(of_adjustments)).scalar_one()
            )
