"""The subscription that collects for an account: opened, moved with the plan, watched, ended.

Stripe's periods have to be ours. Its anchor is given as the day and time of day of the account's
own, and not as an instant, because only so an anchor on the 31st returns after a short month.
Stripe's first period then begins when the subscription is made, moments after ours, and what it
does not collect is collected by us: usage of those moments by a line of the statement
(`activities.metering_check`), and the base fee of a subscription's first period by the opening
invoice. That invoice is a common one, so a card that fails on the first day leads to grace and
reminders; as a subscription's own first invoice it would make the subscription expire within a day
(facts on Stripe, 'Subscriptions'). So that Stripe charges nothing for its first period, whether it
takes that for a whole one or a piece, the fee is subscribed to none times first, and then once.

The subscription is looked for before it is made, by its marks and the number of its first period.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from stripe import StripeClient, Subscription
from temporalio import activity

from activities.drafts import hold
from activities.opening_fees import collect_opening_fees
from activities.stripe_calls import stripe_calls
from activities.stripe_catalog import base_price, metered_price
from activities.stripe_invoices import MARK_CUSTOMER, collection_terms, marks_of
from activities.stripe_once import create_once
from activities.stripe_periods import (
    ENDED,
    StripePeriod,
    agreed_at,
    current_period,
    is_metered,
    numbered_period,
    present_period,
)
from activities.transactions import transaction
from tallystick.contracts import StepOrder, StepResult
from tallystick.ledger import accounts
from tallystick.ledger.database import Ledger
from tallystick.ledger.notices import raise_notice
from tallystick.ledger.terms import TermsInForce
from tallystick.plans.agenda import NO_PLAN
from tallystick.plans.periods import Period, billing_period, period_at

MARK_FIRST_PERIOD = "tallystick_first_period"
TURNING = timedelta(hours=2)
"""After a boundary, for Stripe's own period to turn."""
TURN_LOOK, DRIFT_LOOK = timedelta(minutes=10), timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a plan wants of Stripe: a price to subscribe to, and how it is collected."""

    price_id: str
    metered: bool
    terms_days: int


class SubscriptionActivities:
    """Keeps the subscriptions at Stripe what the accounts of `ledger` want."""

    def __init__(self, ledger: Ledger, client: StripeClient):
        self._ledger = ledger
        self._client = client

    @activity.defn
    async def open_subscription(self, order: StepOrder) -> StepResult:
        """Bring Stripe to what the plan in force wants: a subscription that fits it, or none.

        What is open of base fees for subscriptions that begin is invoiced with it.
        """
        of = await present_period(self._ledger, self._client, order)
        agreed = await agreed_at(self._ledger, of.customer_id, max(order.now, of.account.anchor))
        wanted = await self._wanted(agreed)
        with stripe_calls():
            subscription = await self._fitting(of.subscription, wanted)
            if subscription is None and wanted is not None:
                subscription = await self._open(of, wanted)
        async with transaction(self._ledger) as tx:
            subscription_id = subscription.id if subscription else None
            await accounts.set_subscription(tx, of.customer_id, subscription_id)
            await accounts.set_aligned_plan(tx, of.customer_id, agreed.plan)
        days = agreed.terms.payment_terms_days
        await collect_opening_fees(self._ledger, self._client, of, days, order.now)
        if subscription is None:
            return StepResult(words=f"plan {agreed.plan} needs no subscription")
        return StepResult(words=f"subscription {subscription.id} collects for plan {agreed.plan}")

    @activity.defn
    async def align_subscription(self, order: StepOrder) -> StepResult:
        """Set Stripe up for what comes after the open period: the next plan, or the end.

        Another base fee is charged from the next invoice on; Stripe prorates nothing, statements
        do. Where another model follows, or nothing, the subscription ends at the boundary.
        """
        of = await present_period(self._ledger, self._client, order)
        account = of.account
        _, open_period = period_at(account.anchor, account.time_zone, account.invoiced_until)
        wanted, plan, boundary = None, NO_PLAN, account.cancel_at
        if boundary is None:
            agreed = await agreed_at(self._ledger, of.customer_id, max(open_period.end, order.now))
            wanted, plan, boundary = await self._wanted(agreed), agreed.plan, open_period.end
        words = "no subscription is to be told"
        if of.subscription is not None and of.ended is None:
            with stripe_calls():
                words = await self._align(of.subscription, wanted, boundary)
        async with transaction(self._ledger) as tx:
            await accounts.set_aligned_plan(tx, of.customer_id, plan)
        return StepResult(words=words)

    @activity.defn
    async def check_anchor(self, order: StepOrder) -> StepResult:
        """Compare Stripe's present period with ours; a drift is told once a period."""
        of = await present_period(self._ledger, self._client, order)
        if of.subscription is None:
            return StepResult(words="no subscription collects for the account")
        drift = _drift(of)
        if drift is None:
            return StepResult(words="Stripe's period is ours")
        if of.ended is None and _is_turning(of, order.now):
            return StepResult(
                words="Stripe's period is about to turn", again_at=order.now + TURN_LOOK
            )
        async with transaction(self._ledger) as tx:
            await raise_notice(
                tx,
                of.customer_id,
                key=f"anchor-drift:{of.ordinal}",
                kind="anchor_drift",
                audience="operator",
                message=f"Subscription {of.subscription.id} has come apart from its account: "
                f"{drift}.",
                facts={"subscription_id": of.subscription.id, "ordinal": of.ordinal},
                at=order.now,
            )
        return StepResult(words=drift, again_at=order.now + DRIFT_LOOK)

    @activity.defn
    async def cancel_subscription(self, order: StepOrder) -> StepResult:
        """End the subscription of an account that ends with the period the subject numbers.

        All usage is known to Stripe by now. Where the account ends between two boundaries, Stripe
        invoices it upon the cancellation; else it has done so at the boundary. That last invoice
        is held as any other.
        """
        of = await numbered_period(self._ledger, self._client, order)
        if of.subscription is not None and of.ended is None:
            if not of.ends_between_boundaries:
                held = await hold(self._ledger, self._client, of, order.now)
                if held.again_at is not None:
                    return held
            with stripe_calls():
                await self._client.v1.subscriptions.cancel_async(
                    of.subscription.id,
                    {"invoice_now": of.ends_between_boundaries, "prorate": False},
                )
            of = await numbered_period(self._ledger, self._client, order)
        return await hold(self._ledger, self._client, of, order.now)

    # --- What a plan wants ------------------------------------------------------------------------
    async def _wanted(self, agreed: TermsInForce) -> _Wanted | None:
        model, days = agreed.terms.model, agreed.terms.payment_terms_days
        with stripe_calls():
            match model:
                case "prepaid":
                    return None
                case "pass-through":
                    return _Wanted(await metered_price(self._client), metered=True, terms_days=days)
                case "hybrid":
                    cents = int(agreed.terms.base_fee_usd * 100)
                    price_id = await base_price(self._client, cents)
                    return _Wanted(price_id, metered=False, terms_days=days)

    async def _fitting(
        self, subscription: Subscription | None, wanted: _Wanted | None
    ) -> Subscription | None:
        """Return the subscription, made to fit; None where it cannot, and is ended then.

        It is not invoiced: what it had to collect was, with the period that ended before.
        """
        if subscription is None or subscription.status in ENDED:
            return None
        if wanted is not None and is_metered(subscription) == wanted.metered:
            await self._adapt(subscription, wanted)
            return subscription
        await self._client.v1.subscriptions.cancel_async(
            subscription.id, {"invoice_now": False, "prorate": False}
        )
        return None

    async def _align(
        self, subscription: Subscription, wanted: _Wanted | None, boundary: datetime
    ) -> str:
        if wanted is not None and is_metered(subscription) == wanted.metered:
            await self._adapt(subscription, wanted)
            return f"subscription {subscription.id} goes on"
        if current_period(subscription).end != boundary:
            # Stripe has turned already, or the account ends in between: the closing ends it.
            return f"subscription {subscription.id} is ended when the period is closed"
        if not subscription.cancel_at_period_end:
            await self._client.v1.subscriptions.update_async(
                subscription.id, {"cancel_at_period_end": True, "proration_behavior": "none"}
            )
        return f"subscription {subscription.id} ends with the period"

    async def _adapt(self, subscription: Subscription, wanted: _Wanted) -> None:
        """Give a running subscription the price and the payment terms that are wanted."""
        changes: dict[str, Any] = {}
        item = subscription.items.data[0]
        if item.price.id != wanted.price_id or (not wanted.metered and item.quantity != 1):
            once = {} if wanted.metered else {"quantity": 1}
            changes["items"] = [{"id": item.id, "price": wanted.price_id, **once}]
        if (subscription.days_until_due or 0) != wanted.terms_days:
            changes |= collection_terms(wanted.terms_days)
        if subscription.cancel_at_period_end:
            changes["cancel_at_period_end"] = False
        if changes:
            params: Any = {**changes, "proration_behavior": "none"}
            await self._client.v1.subscriptions.update_async(subscription.id, params)

    # --- Opening ----------------------------------------------------------------------------------
    async def _open(self, of: StripePeriod, wanted: _Wanted) -> Subscription:
        """Return a running subscription that began in this period, made now if there is none."""
        marks = {MARK_CUSTOMER: of.customer_id, MARK_FIRST_PERIOD: str(of.ordinal)}
        listed = await self._client.v1.subscriptions.list_async(
            {"customer": of.stripe_customer_id, "status": "all", "limit": 100}
        )
        ended = 0
        async for found in listed.auto_paging_iter():
            if marks.items() <= marks_of(found.metadata).items():
                if found.status not in ENDED and is_metered(found) == wanted.metered:
                    await self._adapt(found, wanted)
                    return found
                ended += 1
        item = {"price": wanted.price_id}
        anchor = of.account.anchor.astimezone(UTC)
        params: Any = {
            "customer": of.stripe_customer_id,
            "items": [item if wanted.metered else {**item, "quantity": 0}],
            "billing_mode": {"type": "flexible"},
            "billing_cycle_anchor_config": {
                "day_of_month": anchor.day,
                "hour": anchor.hour,
                "minute": anchor.minute,
                "second": anchor.second,
            },
            "proration_behavior": "none",
            "off_session": True,
            "metadata": marks,
            **collection_terms(wanted.terms_days),
        }
        # All that can differ between two attempts is in the key.
        key = (
            f"subscription-{of.customer_id}-{of.ordinal}-{ended}-{wanted.price_id}-"
            f"{wanted.terms_days}"
        )
        made = await create_once(self._client.v1.subscriptions.create_async, params, key)
        await self._adapt(made, wanted)
        return made


def _drift(of: StripePeriod) -> str | None:
    """Say how Stripe's present period differs from ours; None where it does not."""
    assert of.subscription is not None  # noqa: S101 - the caller has looked
    if of.subscription.status in ENDED:
        return "it has ended" if not of.is_last else None
    theirs = current_period(of.subscription)
    whole = billing_period(of.account.anchor, of.account.time_zone, of.ordinal)
    # The first period begins when the subscription was made.
    begins = whole.start if of.began is None else max(whole.start, of.began)
    if theirs == Period(begins, whole.end):
        return None
    return (
        f"Stripe's period is {theirs.start.isoformat()} to {theirs.end.isoformat()}, ours "
        f"{begins.isoformat()} to {whole.end.isoformat()}"
    )


def _is_turning(of: StripePeriod, now: datetime) -> bool:
    assert of.subscription is not None  # noqa: S101 - the caller has looked
    just_ended = current_period(of.subscription).end == of.period.start
    return just_ended and now < of.period.start + TURNING
