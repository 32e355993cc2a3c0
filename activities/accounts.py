"""`close_books`, `finish_period`, `end_account`: the steps of a period that the ledger takes alone.

Each is one change of the account that only goes forward, so a step that is repeated after a crash
finds it made. The books are closed in a transaction of their own: everybody who records waits for
it, so it holds nothing else.
"""

from datetime import UTC, timedelta

from temporalio import activity

from activities.transactions import transaction
from tallystick.contracts import StepOrder, StepResult
from tallystick.ledger import accounts, customers, terms
from tallystick.ledger.account_tables import BillingAccount
from tallystick.ledger.database import Ledger
from tallystick.ledger.reservations import LAPSE
from tallystick.plans.moves import anchor_in_utc, billing_zone

IN_FLIGHT_PATIENCE = timedelta(minutes=15)
"""How long books stay open for requests from before the period's end. It is longer than a call to
Claude may take by default; what comes later still is billed in the next period."""
LAST_PATIENCE = LAPSE
"""The same for the last period of an account, which has no next one."""
LOOK_AGAIN = timedelta(minutes=1)


class AccountActivities:
    """Changes accounts in `ledger`."""

    def __init__(self, ledger: Ledger):
        self._ledger = ledger

    @activity.defn
    async def close_books(self, order: StepOrder) -> StepResult:
        """Close the books of the period that the subject numbers, once nothing of it is in flight.

        From then on the period never changes: what is recorded later is billed in the next one.
        """
        async with transaction(self._ledger) as tx:
            account = _existing(await accounts.get(tx, order.customer_id))
            period = accounts.period_of(account, int(order.subject))
            under_way = await accounts.in_flight(tx, order.customer_id, period.end)
        if account.closed_until >= period.end:
            return StepResult(words="the books are closed")
        if order.now < period.end:
            return StepResult(words="the period has not ended", again_at=period.end)
        last = account.cancel_at == period.end
        patience = period.end + (LAST_PATIENCE if last else IN_FLIGHT_PATIENCE)
        if under_way and order.now < patience:
            return StepResult(
                words=f"{under_way} request(s) from before the period's end are not finished",
                again_at=min(order.now + LOOK_AGAIN, patience),
            )
        async with transaction(self._ledger) as tx:
            await accounts.close_until(tx, order.customer_id, period.end)
        return StepResult(words=f"the books are closed up to {period.end.isoformat()}")

    @activity.defn
    async def finish_period(self, order: StepOrder) -> StepResult:
        """Finish the period that the subject numbers, of an account that Stripe does not invoice.

        Where the next period's plan is collected by a Stripe subscription, periods are counted in
        UTC from here on, as Stripe counts them.
        """
        async with transaction(self._ledger) as tx:
            account = _existing(await accounts.lock(tx, order.customer_id))
            period = accounts.period_of(account, int(order.subject))
            await accounts.set_invoiced_until(tx, order.customer_id, period.end)
            standing = await terms.standing(tx, order.customer_id, period.end)
            assert standing is not None  # noqa: S101 - it has an account
            assert standing.agreed is not None  # noqa: S101 - plans are append-only
            zone = billing_zone(standing.agreed.terms.model, account.time_zone)
            if zone != account.time_zone:
                anchor = anchor_in_utc(period.end.astimezone(UTC), int(order.subject) + 1)
                await accounts.count_in_utc(tx, order.customer_id, anchor)
        return StepResult(words=f"period {order.subject} is finished")

    @activity.defn
    async def end_account(self, order: StepOrder) -> StepResult:
        """End the account whose last period is invoiced; its customer is refused for good."""
        async with transaction(self._ledger) as tx:
            account = _existing(await accounts.lock(tx, order.customer_id))
            if not await accounts.end(tx, order.customer_id, order.now):
                return StepResult(words="the account has ended before, or its books are open")
            assert account.cancel_at is not None  # noqa: S101 - else it would not have ended
            reason = customers.ended_words(account.cancel_at)
            await customers.suspend(tx, order.customer_id, "ended", reason)
        return StepResult(words="the account has ended")


def _existing(account: BillingAccount | None) -> BillingAccount:
    assert account is not None, "a step without an account"  # noqa: S101 - its agenda is empty
    return account
