"""`expire_grants` and `watch_usage`: what becomes of credit with time, and who is near a limit."""

from collections.abc import Callable
from datetime import datetime, timedelta

from temporalio import activity

from activities.transactions import transaction
from tallystick.contracts import StepOrder, StepResult
from tallystick.ledger import accounts, balance_watch, reservations, usage_watch, wallet
from tallystick.ledger.database import Ledger
from tallystick.money import from_nano_usd, plain

LOOK_AGAIN = timedelta(minutes=5)
"""While a request is in flight from before credit expired. Nobody waits for the entry: what has
expired is in no balance from its instant on."""


class WalletActivities:
    """Looks after credit in `ledger`; `clock` tells the present to what no workflow gives it."""

    def __init__(self, ledger: Ledger, clock: Callable[[], datetime]):
        self._ledger = ledger
        self._clock = clock

    @activity.defn
    async def expire_grants(self, order: StepOrder) -> StepResult:
        """Enter what is left of grants that have expired; again, there is nothing left to enter.

        What was asked for before a grant expired may still be served before it, and burns it then;
        so this waits for requests in flight from before, for as long as one can be in flight.
        """
        async with transaction(self._ledger) as tx:
            account = await accounts.lock(tx, order.customer_id)
            if account is None:
                return StepResult(words="no account, no credit")
            expired = (await wallet.holdings(tx, order.customer_id)).expired(order.now)
            if not expired:
                return StepResult(words="nothing has expired")
            last = max(each.expires_at for each in expired if each.expires_at is not None)
            if order.now < last + reservations.LAPSE and (
                waiting := await accounts.in_flight(tx, order.customer_id, before=last)
            ):
                return StepResult(
                    words=f"{waiting} requests from before it expired may still use it",
                    again_at=order.now + LOOK_AGAIN,
                )
            held = await wallet.expire(tx, account, order.now)
            await balance_watch.look(tx, account, held, order.now)
        gone = sum(each.remaining_nano_usd for each in expired)
        return StepResult(words=f"${plain(from_nano_usd(gone))} of credit has expired")

    @activity.defn
    async def watch_usage(self) -> int:
        """Tell customers what shares of a cap or an allowance they have passed; returns how many.

        A balance is looked at when it moves (`tallystick.ledger.balance_watch`).
        """
        async with transaction(self._ledger) as tx:
            return len(await usage_watch.look(tx, self._clock()))
