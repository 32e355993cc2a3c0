"""One period of an account, with the subscription that Stripe runs for it.

Every step on Stripe's side begins here: it names the period by its number, reads the account, and
asks Stripe for the subscription as it is. Nothing about it is remembered from the step before.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import stripe
from stripe import Invoice, StripeClient, Subscription

from activities.failures import failure
from activities.stripe_calls import stripe_calls
from activities.stripe_invoices import instant, instant_of
from activities.transactions import transaction
from tallystick.contracts import StepOrder
from tallystick.errors import CUSTOMER_UNMAPPED
from tallystick.ledger import accounts, customers, terms
from tallystick.ledger.account_tables import BillingAccount
from tallystick.ledger.database import Ledger
from tallystick.ledger.terms import TermsInForce
from tallystick.plans.periods import Period, billing_period, period_at

ENDED = ("canceled", "incomplete_expired")
"""A subscription's statuses without return."""
_NOT_OF_A_PERIOD = ("manual", "subscription_create", "quote_accept", "upcoming")
"""Why an invoice was made, where it was not the end of a period."""
COLLECTION_CUT_OFF = timedelta(hours=72)
"""After a period's end, for all of its usage to have reached Stripe. It is as long as Stripe itself
puts a draft off at the most, leaves most of the 35 days in which usage is taken, and is longer than
the outages that are ridden out (facts on Stripe, 'Subscriptions' and 'Meters')."""


@dataclass(frozen=True, slots=True)
class StripePeriod:
    """A period by its number, cut where the account ends, and what Stripe has for it."""

    account: BillingAccount
    stripe_customer_id: str
    ordinal: int
    period: Period
    subscription: Subscription | None

    @property
    def customer_id(self) -> str:
        """Whose account it is."""
        return self.account.customer_id

    @property
    def is_last(self) -> bool:
        """Whether the account ends with it."""
        return self.account.cancel_at == self.period.end

    @property
    def ends_between_boundaries(self) -> bool:
        """Whether it is cut, so that Stripe's own period goes on until it is told."""
        whole = billing_period(self.account.anchor, self.account.time_zone, self.ordinal)
        return self.period.end < whole.end

    @property
    def began(self) -> datetime | None:
        """Since when the subscription counts, None without one."""
        return instant(self.subscription.start_date) if self.subscription else None

    @property
    def ended(self) -> datetime | None:
        """When the subscription ended; None while it runs, and without one."""
        return instant_of(self.subscription.ended_at) if self.subscription else None


async def numbered_period(ledger: Ledger, client: StripeClient, order: StepOrder) -> StripePeriod:
    """Return the period that the order's subject numbers."""
    account, stripe_customer_id = await _account(ledger, order)
    ordinal = int(order.subject)
    period = accounts.period_of(account, ordinal)
    subscription = await subscription_of(client, account)
    return StripePeriod(account, stripe_customer_id, ordinal, period, subscription)


async def present_period(ledger: Ledger, client: StripeClient, order: StepOrder) -> StripePeriod:
    """Return the period around the order's instant, the first one before there is any."""
    account, stripe_customer_id = await _account(ledger, order)
    at = max(order.now, account.anchor)
    ordinal, period = period_at(account.anchor, account.time_zone, at)
    subscription = await subscription_of(client, account)
    return StripePeriod(account, stripe_customer_id, ordinal, period, subscription)


async def _account(ledger: Ledger, order: StepOrder) -> tuple[BillingAccount, str]:
    async with transaction(ledger) as tx:
        account = await accounts.get(tx, order.customer_id)
        customer = await customers.get(tx, order.customer_id)
    assert account is not None and customer is not None, "a step without an account"  # noqa: S101, PT018
    if customer.stripe_customer_id is None:
        raise failure(
            CUSTOMER_UNMAPPED, f"customer {order.customer_id!r} has no Stripe customer; map it"
        )
    return account, customer.stripe_customer_id


async def subscription_of(client: StripeClient, account: BillingAccount) -> Subscription | None:
    """Return the subscription that collects for the account, as it is; None without one."""
    if account.stripe_subscription_id is None:
        return None
    with stripe_calls():
        try:
            return await client.v1.subscriptions.retrieve_async(account.stripe_subscription_id)
        except stripe.InvalidRequestError as error:
            if error.code != "resource_missing":
                raise
            return None


def is_metered(subscription: Subscription | None) -> bool:
    """Tell whether a subscription collects what meters count, after use."""
    return subscription is not None and any(
        item.price.recurring is not None and item.price.recurring.usage_type == "metered"
        for item in subscription.items.data
    )


async def agreed_at(ledger: Ledger, customer_id: str, at: datetime) -> TermsInForce:
    """Return the terms of a customer with an account, which always has some."""
    async with transaction(ledger) as tx:
        standing = await terms.standing(tx, customer_id, at)
    assert standing is not None and standing.agreed is not None, "a plan without terms"  # noqa: S101, PT018
    return standing.agreed


def current_period(subscription: Subscription) -> Period:
    """Return the period that Stripe is in; all items of our subscriptions have the same."""
    item = subscription.items.data[0]
    return Period(instant(item.current_period_start), instant(item.current_period_end))


async def invoice_of(client: StripeClient, of: StripePeriod) -> Invoice | None:
    """Return the invoice that Stripe made when the period ended, or when the subscription did.

    The first since then that is made by the subscription's course. None while there is none.
    """
    if of.subscription is None or (of.began is not None and of.began >= of.period.end):
        return None
    since = of.period.end if of.ended is None else min(of.period.end, of.ended)
    listed = await client.v1.invoices.list_async(
        {
            "subscription": of.subscription.id,
            "created": {"gte": int(since.timestamp())},
            "limit": 100,
        }
    )
    made = [
        invoice
        async for invoice in listed.auto_paging_iter()
        if invoice.billing_reason not in _NOT_OF_A_PERIOD
    ]
    return min(made, key=lambda invoice: invoice.created, default=None)
