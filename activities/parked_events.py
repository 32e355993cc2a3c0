"""What a person decides about parked meter events: be done with them, or tell them of another.

A parked event may have been sent, and Stripe may count it although it refused it in the end. So it
is first made certain that Stripe counts nothing of it: its sum of the event's minute is what it has
acknowledged there, once it has had the time to count (`settles`). Then all of it happens in one
transaction, with the events locked and as they were when Stripe was asked: a step that went on by
itself meanwhile wins, and nothing is changed.

Withdrawing keeps the books right. A charge that Stripe's meter would have collected is collected by
a line of its period's statement instead, which is so only while the period is open: the account is
locked, and a charge of a closed period is left to the account's cycle, which withdraws what Stripe
has not counted before it settles. What the meter collects for nobody loses nothing.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

import stripe

from activities.stripe_clients import error_code, refusal
from activities.stripe_summaries import InexactSumError, MeterSummaries, UnknownMeterError
from tallystick.contracts import RequestKey
from tallystick.ledger import accounts, customers, operator_actions, outbox, sent_minutes
from tallystick.ledger.account_tables import BillingAccount
from tallystick.ledger.database import Ledger, Transaction
from tallystick.ledger.operator_actions import Decision
from tallystick.ledger.tables import MeterEvent
from tallystick.metering import CHARGE_METER
from tallystick.money import from_nano_usd, plain
from tallystick.reconciling.meter_minutes import Collects

_MINUTE = timedelta(minutes=1)


class RefusedError(Exception):
    """It cannot be done, or not yet; the message says why, for a person."""


class ParkedEvents:
    """Changes parked events of `ledger`; `summaries` tells what Stripe counts.

    `settles` is how long Stripe is given to count what it was sent.
    """

    def __init__(self, ledger: Ledger, summaries: MeterSummaries, *, settles: timedelta):
        self._ledger = ledger
        self._summaries = summaries
        self._settles = settles

    async def skip(self, key: RequestKey, decision: Decision) -> str:
        """Withdraw what is parked of a request; returns what came of it, as it was entered.

        Raises:
            RefusedError: nothing is parked, its amount would be lost, or Stripe may count it.
        """

        async def withdraw(tx: Transaction, events: Sequence[MeterEvent]) -> str:
            await outbox.withdraw(tx, [_id(event) for event in events], decision.at)
            return _withdrawn(key, events)

        return await self._change(key, decision, withdraw, guarding=True)

    async def move(self, key: RequestKey, decision: Decision) -> str:
        """Let what is parked of a request name its customer's present Stripe customer.

        An event that was sent gets its next identifier: Stripe may know the old one.

        Raises:
            RefusedError: as `skip` does.
        """

        async def rename(tx: Transaction, events: Sequence[MeterEvent]) -> str:
            customer = await customers.get(tx, key.customer_id)
            mapped = customer and customer.stripe_customer_id
            if mapped is None:
                raise RefusedError(f"customer {key.customer_id!r} has no Stripe customer")
            why = f"moved to {mapped} by {decision.by}"
            for event in events:
                elsewhere = event.first_sent_at and event.stripe_customer_id != mapped
                if elsewhere and not await outbox.rename(tx, event.identifier, why, decision.at):
                    raise RefusedError(f"{event.identifier} was repaired too often already")
            return f"{len(events)} parked meter events are for {mapped}"

        return await self._change(key, decision, rename, guarding=False)

    async def _change(
        self,
        key: RequestKey,
        decision: Decision,
        change: Callable[[Transaction, Sequence[MeterEvent]], Awaitable[str]],
        *,
        guarding: bool,
    ) -> str:
        async with self._ledger.begin() as tx:
            seen = await outbox.parked_of(tx, key)
        if not seen:
            raise RefusedError(f"nothing is parked of request {key.request_id!r}")
        for event in seen:
            await self._make_certain(event, decision.at)
        async with self._ledger.begin() as tx:
            account = await accounts.lock(tx, key.customer_id)
            events = await outbox.parked_of(tx, key, locked=True)
            if [_version(each) for each in events] != [_version(each) for each in seen]:
                raise RefusedError("it has been tried again meanwhile; look at it again")
            for event in events if guarding else ():
                await _must_stay_collected(tx, account, event)
            outcome = await change(tx, events)
            await operator_actions.enter(tx, decision, outcome)
        return outcome

    async def _make_certain(self, event: MeterEvent, now: datetime) -> None:
        """Return if Stripe counts nothing of an event."""
        sent_to, parked_at = event.stripe_customer_id, event.parked_at
        if event.first_sent_at is None or sent_to is None or parked_at is None:
            return
        if now < parked_at + self._settles:
            seconds = int(self._settles.total_seconds())
            raise RefusedError(
                f"Stripe is given {seconds} seconds to count what it was sent; try again later "
                "(TALLYSTICK_SUMMARIES_SETTLE says how long)"
            )
        minute = event.occurred_at.replace(second=0, microsecond=0)
        async with self._ledger.begin() as tx:
            known = await outbox.sums_in_window(
                tx,
                stripe_customer_id=sent_to,
                meter=event.meter,
                start=minute,
                end=minute + _MINUTE,
            )
        counted = await self._counted(sent_to, event.meter, minute)
        if counted != known.delivered:
            raise RefusedError(
                f"Stripe counts {counted:,} in the minute of {event.occurred_at.isoformat()} on "
                f"{event.meter}, and has acknowledged {known.delivered:,}: it may count this one"
            )

    async def _counted(self, stripe_customer_id: str, meter: str, minute: datetime) -> int:
        try:
            return await self._summaries.total(stripe_customer_id, meter, minute, minute + _MINUTE)
        except UnknownMeterError:
            return 0
        except InexactSumError as error:
            raise RefusedError(f"Stripe's sum is not known: {error}") from error
        except stripe.StripeError as error:
            if error_code(error) == "resource_missing":
                return 0  # of a customer that Stripe does not know it counts nothing
            raise RefusedError(f"Stripe's sum is not known: {refusal(error).message}") from error


async def _must_stay_collected(
    tx: Transaction, account: BillingAccount | None, event: MeterEvent
) -> None:
    if account is None or event.billed_at >= account.closed_until:
        return
    if sent_minutes.is_late(account, event):
        return  # the later statement has it, whatever the meter counts
    of = await sent_minutes.collects(tx, account, event.customer_id, event.meter, event.occurred_at)
    if of is not Collects.NOTHING:
        raise RefusedError(
            f"its period is closed: what Stripe has not counted of it, the account's cycle "
            f"withdraws by itself; `tallystick customer show {event.customer_id}` says when"
        )


def _withdrawn(key: RequestKey, events: Sequence[MeterEvent]) -> str:
    nano = sum(event.value for event in events if event.meter == CHARGE_METER)
    words = f"{len(events)} meter events of {key.request_id} are withdrawn"
    if not nano:
        return words
    return f"{words}; a statement collects their ${plain(from_nano_usd(nano))} without the meter"


def _id(event: MeterEvent) -> int:
    assert event.meter_event_id is not None  # noqa: S101 - it is in the ledger
    return event.meter_event_id


def _version(event: MeterEvent) -> tuple[int, datetime | None, str]:
    return _id(event), event.parked_at, event.identifier
