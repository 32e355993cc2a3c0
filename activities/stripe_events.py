"""`apply_stripe_events` and `forward_events`: the inbox of Stripe's events as steps of workflows.

To apply an event is to look at what it was about, as Stripe shows it now. Many events of one object
are one look, and their order does not matter: a look that was overtaken changes nothing
(`ledger.invoices`), so no event can move a customer back to an older state. Events are marked after
their look is committed; a crash in between leads to one more look.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime

from stripe import StripeClient
from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from activities.event_forwarding import EventForwarder
from activities.failures import failure
from activities.looks import refresh_invoice
from activities.paying import pay_with_new_card
from activities.stripe_calls import stripe_calls
from activities.transactions import transaction
from tallystick.contracts import StepOrder, StepResult
from tallystick.errors import LEDGER_UNAVAILABLE, STRIPE_REJECTED, TEMPORAL_UNAVAILABLE
from tallystick.ledger import accounts, agenda, inbox
from tallystick.ledger.database import Ledger, LedgerUnavailableError
from tallystick.ledger.inbox import WaitingEvent
from tallystick.ledger.notices import raise_notice
from tallystick.stripe_events import Look, look_of

PAGE = 500
"""Events looked at between two marks."""
_STOPPED = ("canceled", "incomplete_expired", "paused", "unpaid")
"""Statuses in which a subscription no longer collects."""

_Subject = tuple[Look, str]
"""What is looked at, and its id; all of a customer's unpaid invoices have none."""


class StripeEventActivities:
    """Applies and forwards the events in the inbox of `ledger`.

    Args:
        ledger: whose inbox.
        stripe: shows the state that events are about.
        temporal: where the cycles are.
        clock: tells the present; for the sweep, which has no other.
    """

    def __init__(
        self,
        ledger: Ledger,
        stripe: StripeClient,
        temporal: Client,
        clock: Callable[[], datetime],
    ):
        self._ledger = ledger
        self._stripe = stripe
        self._temporal = temporal
        self._forwarder = EventForwarder(ledger, stripe, clock)

    @activity.defn
    async def forward_events(self) -> int:
        """Tell cycles of the events that wait for them; returns how many were told.

        Raises:
            ApplicationError: `LedgerUnavailable` or `TemporalUnavailable`; what was told is marked.
        """
        try:
            return await self._forwarder.forward(self._temporal)
        except LedgerUnavailableError as error:
            raise failure(LEDGER_UNAVAILABLE, f"the ledger is away: {error}") from error
        except RPCError as error:
            raise failure(TEMPORAL_UNAVAILABLE, f"Temporal took no signal: {error}") from error

    @activity.defn
    async def apply_stripe_events(self, order: StepOrder) -> StepResult:
        """Look at all that the customer's waiting events are about.

        What Stripe refuses to show, for good, is parked with a word to the operators.

        Raises:
            ApplicationError: the first failure that may pass; the rest has been looked at.
        """
        applied = 0
        while True:
            async with transaction(self._ledger) as tx:
                events = await inbox.of_customer(tx, order.customer_id, PAGE)
            applied += await self._look_at_all(events, order)
            if len(events) < PAGE:
                # More may have come while these were looked at: the agenda says so, and then soon.
                return StepResult(words=f"{applied} event(s) applied", again_at=order.now)

    async def _look_at_all(self, events: Sequence[WaitingEvent], order: StepOrder) -> int:
        subjects: dict[_Subject, list[str]] = defaultdict(list)
        for event in events:
            subjects[_subject(event)].append(event.event_id)
        applied = 0
        failures: list[ApplicationError] = []
        for subject, event_ids in subjects.items():
            try:
                await self._look(subject, order)
            except ApplicationError as error:
                if error.type != STRIPE_REJECTED.type:
                    failures.append(error)
                    continue
                async with transaction(self._ledger) as tx:
                    await inbox.park(tx, event_ids, order.customer_id, error.message, order.now)
            else:
                async with transaction(self._ledger) as tx:
                    applied += await inbox.mark_applied(tx, event_ids, order.now)
        if failures:
            raise failures[0]
        return applied

    async def _look(self, subject: _Subject, order: StepOrder) -> None:
        match subject:
            case Look.INVOICE, invoice_id:
                await refresh_invoice(self._ledger, self._stripe, invoice_id, order.now)
            case Look.SUBSCRIPTION, subscription_id:
                await self._look_at_subscription(subscription_id, order)
            case _:  # how the customer pays: what could not be collected may be now
                async with transaction(self._ledger) as tx:
                    unpaid = await agenda.unpaid_invoices(tx, order.customer_id)
                for invoice in unpaid:
                    await pay_with_new_card(self._stripe, invoice.invoice_id)
                    await refresh_invoice(self._ledger, self._stripe, invoice.invoice_id, order.now)

    async def _look_at_subscription(self, subscription_id: str, order: StepOrder) -> None:
        """Tell operators of a subscription that has stopped while its account goes on."""
        async with transaction(self._ledger) as tx:
            account = await accounts.get(tx, order.customer_id)
        if account is None or account.stripe_subscription_id != subscription_id:
            return
        with stripe_calls():
            found = await self._stripe.v1.subscriptions.retrieve_async(subscription_id)
        planned = account.cancel_at is not None or found.cancel_at_period_end
        if planned or found.status not in _STOPPED:
            return
        async with transaction(self._ledger) as tx:
            await raise_notice(
                tx,
                order.customer_id,
                key=f"subscription-stopped:{subscription_id}:{found.status}",
                kind="subscription_stopped",
                audience="operator",
                message=(
                    f"Stripe's subscription {subscription_id} is {found.status} while the account "
                    "goes on: its next period is collected by nothing."
                ),
                facts={"subscription_id": subscription_id, "status": found.status},
                at=order.now,
            )


def _subject(event: WaitingEvent) -> _Subject:
    look = look_of(event.type)
    assert look is not None  # noqa: S101 - others are done with when they are received
    return look, "" if look is Look.CARD else event.object_id or ""
